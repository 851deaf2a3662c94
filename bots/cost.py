"""What a request will take, as an estimate: only ratios matter, for the worker settles what it measured."""

from __future__ import annotations

from collections.abc import Sequence

from bots.conversation import CHARS_PER_TOKEN
from workers.contract import ChatMessage, ImageBody, ImageOptions

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

#: What is offered where a budget has too little left: these shares of what was asked for, and no less than that.
_SMALLER = (0.75, 0.5, 0.33, 0.25, 0.125, 0.0625)
_LEAST_ANSWER_TOKENS = 16
_LEAST_STEPS = 4


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


def longest_answer_tokens(messages: Sequence[ChatMessage], max_new_tokens: int, left_gpu_s: float) -> int | None:
    """How long an answer may be for its estimate to fit into what a budget has left.

    Args:
        messages: What the model is shown.
        max_new_tokens: Longest answer that was asked for.
        left_gpu_s: What is left, in GPU-seconds.

    Returns:
        Tokens, fewer than were asked for; None where not even a short answer fits.
    """
    for share in _SMALLER:
        tokens = int(max_new_tokens * share)
        if tokens >= _LEAST_ANSWER_TOKENS and chat_cost_gpu_s(messages, tokens) <= left_gpu_s:
            return tokens
    return None


def smaller_pictures(body: ImageBody, left_gpu_s: float) -> ImageOptions | None:
    """Options whose estimate fits into what a budget has left: first fewer pictures, then fewer steps.

    Args:
        body: What was asked for.
        left_gpu_s: What is left, in GPU-seconds.

    Returns:
        The options; None where not even one picture in few steps fits.
    """
    options = body.options
    steps = options.num_inference_steps or _USUAL_STEPS
    fewer = [{"n": n} for n in range(options.n - 1, 0, -1)]
    if body.task != "upscale":
        quicker = [int(steps * share) for share in _SMALLER]
        fewer += [{"n": 1, "num_inference_steps": each} for each in quicker if each >= _LEAST_STEPS]
    for change in fewer:
        smaller = options.model_copy(update=change)
        if image_cost_gpu_s(body.model_copy(update={"options": smaller})) <= left_gpu_s:
            return smaller
    return None


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
