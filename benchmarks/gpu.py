"""What a GPU gives: tokens and pictures a second, and the share of the card's own limits; skipped where there is none.

Run ``python -m benchmarks.gpu [--users 64] [--pictures 16] [--device cuda] [--json FILE]``. The limits are measured,
not taken from a data sheet: the bandwidth by copying a large tensor, the compute peak by multiplying large
bf16 matrices. A decode step reads every weight once, so the share of the bandwidth is steps a second times the size of
the weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measuring import Row, report
from generation.chat.config import ChatConfig
from generation.chat.factory import build as build_chat
from generation.chat.loading import load
from generation.data_dir import default_data_dir
from generation.image.factory import build as build_image
from generation.types import ChatRequest, Delta, Engine, Failed, ImageRequest, ImageSampling, Message, Sampling

TOKENS, STEPS = 128, 16


def seconds(device: str, work: Callable[[], object], times: int = 10) -> float:
    """Of one call, the device waited for."""
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    begun_s = time.perf_counter()
    for _ in range(times):
        work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun_s) / times


def limits(device: str) -> tuple[float, float]:
    """Bytes and bf16 operations a second that the device is able to do."""
    size = 2**28 if device != "cpu" else 2**24
    here, there = (torch.empty(size, dtype=torch.float32, device=device) for _ in range(2))
    bytes_per_s = 2 * size * 4 / seconds(device, lambda: there.copy_(here))
    side = 8192 if device != "cpu" else 1024
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    flop_per_s = 2 * side**3 / seconds(device, lambda: left @ right)
    return bytes_per_s, flop_per_s


def drained(engine: Engine) -> tuple[float, int, int]:
    """Seconds, steps and pieces until everything that was submitted has ended."""
    begun_s, steps, pieces = time.perf_counter(), 0, 0
    while engine.busy:
        steps += 1
        for event in engine.step():
            assert not isinstance(event, Failed), event
            pieces += isinstance(event, Delta)
    return time.perf_counter() - begun_s, steps, pieces


def chat(device: str, users: int, bytes_per_s: float, flop_per_s: float) -> Row:
    engine = build_chat({"data_dir": str(default_data_dir()), "device": device, "slots": users}, lambda *_: None)
    for round_ in ("warm", "measured"):
        for number in range(users):
            asked = Message("user", f"Write the numbers from {number + 1} to 1000, separated by commas.")
            sampling = Sampling(max_new_tokens=TOKENS, temperature=0)
            engine.submit(ChatRequest(f"{round_}{number}", (asked,), sampling))
        took_s, steps, _ = drained(engine)
    engine.close()
    weights, count = size(device)
    figures = {
        "per s": users * TOKENS / took_s,
        "% of bandwidth": 100 * steps * weights / took_s / bytes_per_s,
        "% of compute": 100 * 2 * count * users * TOKENS / took_s / flop_per_s,
    }
    return Row(f"tokens, {users} users", figures)


def size(device: str) -> tuple[int, int]:
    """Bytes and number of the model's weights."""
    loaded = load(ChatConfig.from_options({"data_dir": str(default_data_dir()), "device": device}), lambda *_: None)
    parameters = list(loaded.model.parameters())
    return sum(each.numel() * each.element_size() for each in parameters), sum(each.numel() for each in parameters)


def images(device: str, pictures: int) -> Row:
    engine = build_image({"data_dir": str(default_data_dir()), "device": device}, lambda *_: None)
    for round_ in ("warm", "measured"):
        for number in range(pictures):
            sampling = ImageSampling(num_inference_steps=STEPS, seed=number)
            engine.submit(ImageRequest(f"{round_}{number}", "a red apple", sampling=sampling))
        took_s, _, _ = drained(engine)
    engine.close()
    return Row(f"pictures, {pictures} at once, {STEPS} steps", {"per s": pictures / took_s})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--device", default="cuda", help="cpu shows that the code runs, and no more")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        sys.exit(0)
    bytes_per_s, flop_per_s = limits(options.device)
    name = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    rows = [chat(options.device, options.users, bytes_per_s, flop_per_s), images(options.device, options.pictures)]
    report(f"{name}: {bytes_per_s / 1e9:,.0f} GB/s, {flop_per_s / 1e12:,.1f} TFLOP/s in bf16", rows, options.json)


if __name__ == "__main__":
    main()
