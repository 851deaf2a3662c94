"""What a request will take, as an estimate: only ratios matter, for the worker settles what it measured."""

from __future__ import annotations

from collections.abc import Sequence

from bots.conversation import CHARS_PER_TOKEN
from workers.contract import ChatMessage, ImageBody

_LARGEST_GPU_S = 86_400.0
#: One search, its question embedded; no GPU takes part.
ANSWER_COST_GPU_S = 0.05

# One share of a running batch, on the embedded chat model's usual machine.
_PREFILL_GPU_S_PER_TOKEN = 0.001
_DECODE_GPU_S_PER_TOKEN = 0.01
_LEAST_CHAT_GPU_S = 0.01

# One picture of 512 x 512 pixels, on the same machine.
_STEP_GPU_S = 0.05
_UPSCALE_GPU_S = 1.0
_USUAL_STEPS = 20
_USUAL_PIXELS = 512 * 512


def chat_cost_gpu_s(messages: Sequence[ChatMessage], max_new_tokens: int) -> float:
    """What an answer will take if it is half as long as it may be.

    Args:
        messages: What the model is shown.
        max_new_tokens: Longest answer.

    Returns:
        GPU-seconds, above 0.
    """
    prompt_tokens = sum(len(message.content) for message in messages) / CHARS_PER_TOKEN
    cost_gpu_s = prompt_tokens * _PREFILL_GPU_S_PER_TOKEN + max_new_tokens / 2 * _DECODE_GPU_S_PER_TOKEN
    return min(max(cost_gpu_s, _LEAST_CHAT_GPU_S), _LARGEST_GPU_S)


def image_cost_gpu_s(body: ImageBody) -> float:
    """What pictures will take: size x steps x number, and their enlargement.

    Args:
        body: What is wanted.

    Returns:
        GPU-seconds, above 0.
    """
    options = body.options
    size = (options.width_px * options.height_px or _USUAL_PIXELS) / _USUAL_PIXELS
    steps = 0.0 if body.task == "upscale" else float(options.num_inference_steps or _USUAL_STEPS)
    if body.init_image is not None:
        steps *= options.strength
    upscaling_gpu_s = _UPSCALE_GPU_S * size if options.upscale > 1 or body.task == "upscale" else 0.0
    cost_gpu_s = options.n * (size * steps * _STEP_GPU_S + upscaling_gpu_s)
    return min(max(cost_gpu_s, _STEP_GPU_S), _LARGEST_GPU_S)
