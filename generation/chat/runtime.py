"""How a loaded model will run: which forward pass, how many rows, how much memory. Decided once, by trying."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from generation import torch_devices
from generation.chat.attention import IMPLEMENTATION, ChunkSpan, Shape, StepAttention, UnsupportedAttentionError
from generation.chat.cuda_graphs import DecodeGraphs
from generation.chat.forward import Decoder, Forward, PackedForward, TransformersDecoder
from generation.chat.fused import FusedDecoder
from generation.chat.kv_cache import KVCache, LayerShape
from generation.chat.sequential import SequentialForward
from generation.errors import OutOfMemoryError
from generation.torch_devices import is_out_of_memory

if TYPE_CHECKING:
    from generation.chat.config import ChatConfig
    from generation.chat.loading import LoadedModel

_LOG = logging.getLogger("palaver.chat.runtime")

#: Most answers in flight when the configuration leaves it open: beyond these a step on a CPU only gets slower.
_SLOTS = {"cpu": 32, "cuda": 128}
_SEQUENTIAL_SLOTS = 8
#: Tokens of the trial that compares the packed pass with the model's own; two sequences, the longer in two parts.
_TRIAL_TOKENS = (11, 18)
#: While weights are laid out anew, both new layouts exist beside the old; half as much again is left for the cache.
_COMPACT_MEMORY = 3.0
_TRIAL_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 8e-2, torch.float16: 2e-2}


@dataclass(frozen=True, slots=True)
class Runtime:
    """The outcome.

    Args:
        forward: Runs the steps.
        backend: Its name for status pages.
        slots: Most answers in flight.
        context_tokens: Longest prompt and answer.
        budget_tokens: Most tokens of keys and values, rows times the longest row.
        chunk_tokens: Most prompt tokens in one step.
        prefix_tokens: Most tokens in the prefix cache.
    """

    forward: Forward
    backend: str
    slots: int
    context_tokens: int
    budget_tokens: int
    chunk_tokens: int
    prefix_tokens: int


class _Recorder:
    """An ``Attention`` that notes what each layer stores and computes plain causal attention."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        self.kinds: dict[int, Shape] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
    ) -> torch.Tensor:
        """As ``Attention.attend``; the result is of the right shape and otherwise of no interest."""
        if layer in self.shapes:
            raise UnsupportedAttentionError(f"layer {layer} attends twice")
        self.shapes[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        self.kinds[layer] = shape
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)


def prepare(loaded: LoadedModel, config: ChatConfig) -> Runtime:
    """Find the fastest road on which this model computes what it computes by itself.

    Returns:
        A runtime; models that the packed pass does not fit get the sequential one, with a warning.

    Raises:
        OutOfMemoryError: The model leaves no memory to run in.
    """
    model: Any = loaded.model
    original = model.config._attn_implementation  # noqa: SLF001 - transformers has no public getter
    with torch.inference_mode():
        reference = _reference(model, loaded.device)
        try:
            shapes, decoder = _packed(loaded, config, reference)
        except (UnsupportedAttentionError, TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    f"{loaded.name} leaves too little memory on {loaded.device} to run. Choose a smaller model."
                ) from None
            # Whatever a model cannot do shows as one of these, and the general road is right for all of them.
            _LOG.warning("The model runs one request at a time: %s (%s)", _reason(error), type(error).__name__)
            model.set_attn_implementation(original)
            return _sequential(loaded, config)
    return _sized(loaded, config, shapes, decoder)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else "no reason given"


def _reference(model: Any, device: torch.device) -> list[torch.Tensor]:
    """The model's own logits at the end of each trial sequence."""
    return [model(input_ids=trial, use_cache=False).logits[0, -1].float() for trial in _trials(model, device)]


def _trials(model: Any, device: torch.device) -> list[torch.Tensor]:
    vocabulary = model.config.get_text_config().vocab_size
    source = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocabulary, (1, count), generator=source).to(device) for count in _TRIAL_TOKENS]


def _packed(loaded: LoadedModel, config: ChatConfig, reference: list[torch.Tensor]) -> tuple[list[LayerShape], Decoder]:
    """Switch the model's attention and prove on a trial that nothing else changed.

    Raises:
        UnsupportedAttentionError: The model does something that the packed pass does not.
    """
    model: Any = loaded.model
    model.set_attn_implementation(IMPLEMENTATION)
    recorder = _Recorder()
    decoder = TransformersDecoder(model)
    trials = _trials(model, loaded.device)
    positions = torch.arange(trials[0].shape[1], device=loaded.device)[None]
    decoder.logits(trials[0], positions, recorder, positions[0, -1:])
    shapes = _checked(model, recorder)
    _compare(decoder, shapes, trials, reference, loaded.dtype)
    return shapes, _fastest(loaded, config, shapes, recorder, decoder, trials, reference)


def _fastest(
    loaded: LoadedModel,
    config: ChatConfig,
    shapes: list[LayerShape],
    recorder: _Recorder,
    decoder: Decoder,
    trials: list[torch.Tensor],
    reference: list[torch.Tensor],
) -> Decoder:
    """The written-out decoder where it computes the same, else the one given."""
    compact = config.quantization != "none" and _takes_compact(loaded)
    try:
        fused = FusedDecoder(loaded.model, [recorder.kinds[layer] for layer in range(len(shapes))], compact=compact)
        _compare(fused, shapes, trials, reference, loaded.dtype)
    except (UnsupportedAttentionError, AttributeError) as error:
        _LOG.info("transformers' own modules are used: %s", _reason(error))
        return decoder
    fused.release_sources()
    return fused


def _takes_compact(loaded: LoadedModel) -> bool:
    """Whether weights may be laid out anew: on a CPU in bf16, with memory for the copies beside them."""
    if loaded.device.type != "cpu" or loaded.dtype != torch.bfloat16:
        return False
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in loaded.model.parameters())
    return torch_devices.free_memory_bytes(loaded.device) > _COMPACT_MEMORY * weight_bytes


def _checked(model: Any, recorder: _Recorder) -> list[LayerShape]:
    """The layers in order, if all of them are attention of a kind that is known."""
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    if sorted(recorder.shapes) != list(range(count)):
        raise UnsupportedAttentionError(f"{len(recorder.shapes)} of {count} layers are plain attention")
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * count
    for layer, kind in enumerate(kinds):
        if kind not in {"full_attention", "sliding_attention"}:
            raise UnsupportedAttentionError(f"layer {layer} is {kind}")
        if kind == "sliding_attention" and recorder.kinds[layer].window is None:
            raise UnsupportedAttentionError(f"layer {layer} hides its sliding window")
    return [recorder.shapes[layer] for layer in range(count)]


def _compare(
    decoder: Decoder,
    shapes: list[LayerShape],
    trials: list[torch.Tensor],
    reference: list[torch.Tensor],
    dtype: torch.dtype,
) -> None:
    """Two steps: both prompts but for their ends, then a decode token beside a prompt chunk.

    Raises:
        UnsupportedAttentionError: The logits are not the model's own.
    """
    first, second = (trial[0] for trial in trials)
    device, head, split = first.device, len(first) - 1, 7
    cache = KVCache(shapes, dtype, device, budget_tokens=0)
    cache.ensure(2, max(_TRIAL_TOKENS))

    def run(parts: list[tuple[torch.Tensor, int]], attention: StepAttention, keep: list[int]) -> torch.Tensor:
        tokens = torch.cat([part for part, _ in parts])[None]
        places = torch.cat([torch.arange(start, start + len(part), device=device) for part, start in parts])[None]
        return decoder.logits(tokens, places, attention, torch.tensor(keep, device=device)).float()

    spans = (ChunkSpan(0, 0, head, 0), ChunkSpan(1, head, head + split, 0))
    run([(first[:head], 0), (second[:split], 0)], StepAttention(cache, [], spans), [0])
    rest = (ChunkSpan(1, 1, 1 + len(second) - split, split),)
    step = StepAttention(cache, [head], rest)
    logits = run([(first[head:], head), (second[split:], split)], step, [0, len(second) - split])
    for ours, theirs in zip(logits, reference, strict=True):
        difference = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
        if not difference <= _TRIAL_TOLERANCE.get(dtype, 2e-2):  # also refuses NaN
            raise UnsupportedAttentionError(f"packed logits differ by {difference:.1e}")


def _sized(loaded: LoadedModel, config: ChatConfig, shapes: list[LayerShape], decoder: Decoder) -> Runtime:
    """Divide the memory that is free."""
    token_bytes = sum(shape.numbers for shape in shapes) * loaded.dtype.itemsize
    most_slots = config.slots or _SLOTS[loaded.device.type]
    available = torch_devices.free_memory_bytes(loaded.device) * config.memory_share
    available -= _activation_bytes(loaded, config.prefill_chunk_tokens, most_slots)
    prefix_tokens = int(min(config.prefix_cache_tokens, max(0.0, available) / 4 / token_bytes))
    # While the cache grows, one of its tensors exists twice.
    share = 1 + 1 / len(shapes)
    budget_tokens = int(max(0.0, available - prefix_tokens * token_bytes) / share / token_bytes)
    on_gpu = loaded.device.type == "cuda"
    cache = KVCache(shapes, loaded.dtype, loaded.device, budget_tokens, scratch=on_gpu)
    graphs = DecodeGraphs(decoder, cache) if on_gpu else None
    return Runtime(
        forward=PackedForward(decoder, cache, loaded.device, graphs),
        backend="continuous batching",
        slots=most_slots,
        context_tokens=loaded.context_tokens,
        budget_tokens=budget_tokens,
        chunk_tokens=config.prefill_chunk_tokens,
        prefix_tokens=prefix_tokens,
    )


def _activation_bytes(loaded: LoadedModel, chunk_tokens: int, slots: int) -> int:
    """A generous guess of what one step needs beside weights and cache."""
    model: Any = loaded.model
    config = model.config.get_text_config()
    hidden = config.hidden_size * 24 * (chunk_tokens + slots)
    logits = config.vocab_size * 4 * slots
    return int((hidden + logits) * 4)


def _sequential(loaded: LoadedModel, config: ChatConfig) -> Runtime:
    slots = min(config.slots or _SEQUENTIAL_SLOTS, _SEQUENTIAL_SLOTS)
    return Runtime(
        forward=SequentialForward(loaded.model, loaded.device),
        backend="one at a time",
        slots=slots,
        context_tokens=loaded.context_tokens,
        budget_tokens=slots * loaded.context_tokens,
        # Recurrent states want their prompt in one piece.
        chunk_tokens=2 * slots * loaded.context_tokens,
        prefix_tokens=0,
    )
