"""From a configured name to a model that computes: find it, pull it if need be, load it, say clearly why not."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from generation import catalog, torch_devices
from generation.catalog import ModelLocation, PullProgress
from generation.chat.config import ChatConfig
from generation.chat.prompt import default_template
from generation.errors import ModelCorruptError, ModelError, ModelNotFoundError, OutOfMemoryError

_log = logging.getLogger("palaver.loading")

#: Told what is being done, and which share of it is done (0 to 1) where that is known.
Progress = Callable[[str, float | None], None]
_FALLBACK_CONTEXT_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory with what is needed to run it.

    Args:
        model: In evaluation mode, on ``device``, in ``dtype``.
        tokenizer: With a chat template.
        device: Where it computes.
        dtype: In which numbers.
        eos_token_ids: Any of these ends an answer.
        context_tokens: Longest prompt plus answer that the model was made for, or that was configured if less.
        name: What the model is called, for status pages and logs.
        identity: Which weights these are: adapters belong to one.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    eos_token_ids: frozenset[int]
    context_tokens: int
    name: str
    identity: str = ""


def load(config: ChatConfig, progress: Progress) -> LoadedModel:
    """Load the configured model, pulling it first if it is not here.

    Args:
        config: Which model, where, in which numbers.
        progress: Told what is being done.

    Raises:
        ModelNotFoundError: No such model.
        ModelCorruptError: A file of it is broken.
        ModelError: It cannot be had or used; the message says why and what to do.
        OutOfMemoryError: The weights alone do not fit on the device.
    """
    torch_devices.set_threads(config.threads)
    device = torch_devices.choose_device(config.device)
    dtype = torch_devices.choose_dtype(config.dtype, device)
    location = _located(config, progress)
    directory = cast("Path", location.directory)
    progress("checking the files", None)
    parameters = _check_weights(directory, location, allow_pickle=config.allow_pickle)
    _require_memory(parameters * dtype.itemsize, device, location)
    model_config = _config(directory, location)
    progress("loading the tokenizer", None)
    tokenizer = _tokenizer(directory, location)
    progress("loading the weights", None)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own; ours goes where the caller wants it
    model = _model(directory, location, model_config, device, dtype, allow_pickle=config.allow_pickle)
    context_tokens = _context_tokens(model_config, config.context_tokens, location)
    _log.info("loaded %s: %s on %s, context of %d tokens", location.name, dtype, device, context_tokens)
    eos_token_ids = _eos_token_ids(model.generation_config, tokenizer, location)
    identity = catalog.identity(location)
    return LoadedModel(model, tokenizer, device, dtype, eos_token_ids, context_tokens, location.name, identity)


def _located(config: ChatConfig, progress: Progress) -> ModelLocation:
    def tell(moment: PullProgress) -> None:
        progress(moment.stage, moment.done_bytes / moment.total_bytes if moment.total_bytes else None)

    location = catalog.resolve(config.model, config.data_dir)
    if location.directory is not None:
        return location
    return catalog.pull(config.model, config.data_dir, tell, allow_pickle=config.allow_pickle)


def _check_weights(directory: Path, location: ModelLocation, *, allow_pickle: bool) -> int:
    """See before anything is loaded that the files are whole: the library's own errors tell no name and no remedy.

    Returns:
        Number of parameters in the safetensors files.
    """
    parameters = 0
    if location.source != "directory":
        catalog.check_files(location)
    if not (directory / "config.json").is_file():
        raise ModelNotFoundError(f"{directory} holds no model: it has no config.json.")
    weights = _safetensors(directory, location)
    if not weights and not allow_pickle:
        raise ModelError(
            f"{directory} has no safetensors weights. Others can run code when they are loaded: convert them, or set "
            "allow_pickle if you trust their author."
        )
    for path in weights:
        try:
            with safe_open(path, framework="pt") as file:
                parameters += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
        except FileNotFoundError:
            raise ModelCorruptError(f"{path} is missing. {_remedy(location)}") from None
        except (SafetensorError, OSError):
            raise ModelCorruptError(f"{path} is broken or cut short. {_remedy(location)}") from None
    return parameters


def _require_memory(needed_bytes: int, device: torch.device, location: ModelLocation) -> None:
    """Refuse a model that cannot fit: a process that takes more memory than there is would be killed without a word."""
    free_bytes = torch_devices.free_memory_bytes(device)
    if needed_bytes > free_bytes:
        raise OutOfMemoryError(
            f"The weights of {location.name} take {needed_bytes / 1e9:.1f} GB and {free_bytes / 1e9:.1f} GB are free "
            f"on {device}. Choose a smaller model (palaver models list)."
        )


def _safetensors(directory: Path, location: ModelLocation) -> list[Path]:
    """The weight files that will be loaded: those that the index names, or all."""
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelCorruptError(f"{index} is broken. {_remedy(location)}") from None
    return [directory / Path(name).name for name in sorted(names)]


def _tokenizer(directory: Path, location: ModelLocation) -> PreTrainedTokenizerBase:
    try:
        tokenizer = cast(
            "PreTrainedTokenizerBase",
            AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False),
        )
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        raise ModelCorruptError(f"{directory} has no usable tokenizer ({_line(error)}). {_remedy(location)}") from None
    if not tokenizer.chat_template:
        tokenizer.chat_template = default_template(tokenizer)
        _log.warning("%s brings no chat template: a common one is used", location.name)
    return tokenizer


def _config(directory: Path, location: ModelLocation) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        raise ModelCorruptError(f"{directory} has a bad config.json ({_line(error)}). {_remedy(location)}") from None
    if config.is_encoder_decoder:
        raise ModelError(f"{location.name} is an encoder-decoder; a chat model has to be a decoder.")
    return config


def _model(
    directory: Path,
    location: ModelLocation,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    allow_pickle: bool,
) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            device_map=device if device.type == "cuda" else None,
            use_safetensors=None if allow_pickle else True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, report = loaded  # what the flag makes of it, which the stubs do not know
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"The weights of {location.name} do not fit on {device}. Choose a smaller model."
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        raise ModelError(f"{location.name} cannot be loaded ({_line(error)}). {_remedy(location)}") from None
    absent = report["missing_keys"] or report["mismatched_keys"]
    if absent:  # the library would go on with random numbers in their place
        raise ModelCorruptError(f"{directory} lacks {len(absent)} of the model's weights. {_remedy(location)}")
    return cast("PreTrainedModel", model.eval())


def _eos_token_ids(
    generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase, location: ModelLocation
) -> frozenset[int]:
    """What ends an answer: the model's own list, and the tokenizer's mark of a turn's end."""
    told = generation.eos_token_id if generation is not None else None
    ids = set(told if isinstance(told, list) else [told]) | {tokenizer.eos_token_id}
    ids.discard(None)
    if not ids:
        raise ModelError(f"{location.name} names no token that ends an answer. Set eos_token_id in its config.json.")
    return frozenset(int(token) for token in ids)


def _context_tokens(config: PretrainedConfig, wanted: int, location: ModelLocation) -> int:
    """The model's own context, or less if that was asked for."""
    text = config.get_text_config(decoder=True)
    own = int(getattr(text, "max_position_embeddings", 0) or _FALLBACK_CONTEXT_TOKENS)
    if wanted > own:
        raise ModelError(f"{location.name} was made for {own} tokens of context, not {wanted}. Lower context_tokens.")
    return wanted or own


def _remedy(location: ModelLocation) -> str:
    if location.source == "directory":
        return "Copy the model again."
    return f"Run: palaver models verify {location.name}"


def _line(error: Exception) -> str:
    """The first line of a foreign error, short."""
    told = str(error).strip().splitlines()
    return f"{type(error).__name__}: {told[0][:200]}" if told else type(error).__name__
