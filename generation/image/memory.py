"""How many pictures fit into one pass."""

from __future__ import annotations

import torch

from generation import torch_devices
from generation.image.config import ImageConfig
from generation.image.family import Family, Prompt

#: On a CPU a batch is hardly faster than its pictures one after the other: small pictures gain a little up to four,
#: large ones leave the caches beyond two, and more only makes each wait for the others.
_CPU_ROWS, _CPU_ROWS_LARGE, _LARGE_PIXELS = 4, 2, 128 * 128
_MOST_ROWS = 32
#: A generous guess of what a pass on a CPU takes for each pixel of its pictures, which cannot be measured there.
_CPU_BYTES_PER_PIXEL = 3_000


def rows_for(family: Family, config: ImageConfig) -> int:
    """Most pictures of the model's own size in one pass: as many as fit into this engine's share of what is free."""
    if config.rows:
        return config.rows
    share = torch_devices.free_memory_bytes(family.device) * config.memory_share
    if family.device.type == "cpu":
        pixels = family.fit(family.defaults.size).pixels
        taken, most = pixels * _CPU_BYTES_PER_PIXEL, _CPU_ROWS if pixels <= _LARGE_PIXELS else _CPU_ROWS_LARGE
    else:
        taken, most = _bytes_of_one(family), _MOST_ROWS
    return max(1, min(most, int(share / max(1, taken))))


@torch.inference_mode()
def _bytes_of_one(family: Family) -> int:
    """What a pass for one picture with guidance takes at its height, beside the weights: measured."""
    size = family.fit(family.defaults.size)
    rows = family.encode_prompt(Prompt("a trial", "", size, None, max(2.0, family.defaults.guidance_scale))).rows
    latents = torch.zeros(len(rows), *family.latent_shape(size), device=family.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(family.device)
    before = torch.cuda.memory_allocated(family.device)
    condition = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    family.denoise(latents, torch.ones(len(rows), device=family.device), condition)
    taken = torch.cuda.max_memory_allocated(family.device) - before
    torch.cuda.empty_cache()
    return int(taken)
