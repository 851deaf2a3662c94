"""Training of an adapter: LoRA by peft on the answers of a set, resumable, the same for the same seed.

Only low-rank additions are trained, and only answers are learnt: the loss leaves out what the model is shown. Prompts
are the very tokens that the chat engine will give it.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from safetensors.torch import save

from generation.chat.prompt import answer_tokens, end_of_turn, fit
from generation.errors import OutOfMemoryError, PromptTooLongError, TuningError
from generation.learning import checkpoints
from generation.torch_devices import is_out_of_memory

if TYPE_CHECKING:
    from generation.chat.loading import LoadedModel
    from generation.tuning.examples import Example

#: Told the step, the number of steps and the loss by token.
OnStep = Callable[[int, int, float], None]

_WARM_UP_SHARE = 0.1
_LEAST_RATE_SHARE = 0.1
_LARGEST_NORM = 1.0
_CHECKPOINT_EVERY_S = 30.0
#: Tokens that go through the model at once; a step's examples are taken in several passes beyond it.
_PASS_TOKENS = 2_048
_IGNORED = -100


@checked_dataclass(frozen=True)
class Recipe:
    """How an adapter is trained.

    Args:
        rank: Of each addition.
        alpha: Scale: additions count ``alpha / rank``.
        dropout: Share of an addition's inputs that is left out while training.
        learning_rate: Highest, after the warm-up; it falls along a cosine to a tenth.
        epochs: How often each example is seen.
        max_steps: Most steps; 0 for as many as the epochs take.
        batch_examples: Examples a step.
        max_tokens: Longest example; longer ones lose their oldest turns, and are left out if the last is longer.
        seed: The same one on the same machine gives the same adapter.
    """

    rank: Annotated[int, Field(ge=1, le=256)] = 16
    alpha: Annotated[float, Field(gt=0, le=1024)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    max_steps: Annotated[int, Field(ge=0)] = 0
    batch_examples: Annotated[int, Field(ge=1, le=1024)] = 4
    max_tokens: Annotated[int, Field(ge=16)] = 1_024
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in tokens.

    Args:
        prompt: What the model is shown.
        answer: What it is to say, with the token that ends it.
    """

    prompt: list[int]
    answer: list[int]

    @property
    def tokens(self) -> int:
        """Length of both."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter as peft writes it, and how its training went.

    Args:
        config: ``adapter_config.json``.
        data: The safetensors file.
        steps: Of training.
        seconds: Of training in this run.
        loss: Mean loss by token of the last epoch.
    """

    config: dict[str, Any]
    data: bytes
    steps: int
    seconds: float
    loss: float


def encoded(examples: Sequence[Example], loaded: LoadedModel, max_tokens: int) -> list[Encoded]:
    """Examples as tokens; those whose last turn and answer are too long are left out."""
    tokenizer, limit = loaded.tokenizer, min(max_tokens, loaded.context_tokens)
    end = end_of_turn(tokenizer, loaded.eos_token_ids)
    found = []
    for each in examples:
        answer = [*answer_tokens(each.answer, tokenizer), end]
        if len(answer) < limit:
            try:
                prompt = fit(each.messages[:-1], tokenizer, limit - len(answer))
            except PromptTooLongError:
                continue
            found.append(Encoded(prompt.token_ids, answer))
    return found


def perplexity(model: Any, examples: Sequence[Encoded], device: torch.device) -> float:
    """Of answers, by token: the exponential of the mean negative log-likelihood."""
    loss = count = 0.0
    with torch.inference_mode():
        for group in _passes(sorted(examples, key=lambda each: each.tokens)):
            loss += float(_loss(model, group, device))
            count += sum(len(each.answer) for each in group)
    try:
        return math.exp(loss / count) if count else math.nan
    except OverflowError:
        return math.inf


def train(
    loaded: LoadedModel, examples: Sequence[Encoded], recipe: Recipe, folder: Path, key: str, on_step: OnStep
) -> tuple[Any, Trained]:
    """Train an adapter, or go on where a run with the same key was interrupted.

    Args:
        loaded: The model; its weights stay as they are.
        examples: What is learnt.
        recipe: How.
        folder: Where checkpoints are kept until the training is done. They hold no text.
        key: Names model, set and recipe: a checkpoint of another key is not gone on from.
        on_step: Told each step.

    Returns:
        The model with the adapter, to be measured and then unloaded, and the adapter.

    Raises:
        TuningError: There is nothing to train on, or the model takes no adapter.
        OutOfMemoryError: Training does not fit.
    """
    if not examples:
        raise TuningError("There is nothing to train on: no dialogue fits the model's context.")
    torch.manual_seed(recipe.seed)
    model = _with_adapter(loaded, recipe)
    model.train()
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    by_epoch = -(-len(examples) // recipe.batch_examples)
    steps = min(recipe.max_steps or by_epoch * recipe.epochs, by_epoch * recipe.epochs)
    begun = _resume(folder, key, parameters, optimizer)
    started_s = saved_s = time.monotonic()
    losses: list[float] = []
    for step in range(begun, steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, steps)
        try:
            losses.append(_step(model, _batch(examples, step, recipe), step, recipe.seed, loaded.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError("Training does not fit into memory. Lower --max-tokens or --batch.") from None
        torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad()
        on_step(step + 1, steps, losses[-1])
        if time.monotonic() - saved_s > _CHECKPOINT_EVERY_S and step + 1 < steps:
            _save(folder, key, step + 1, parameters, optimizer)
            saved_s = time.monotonic()
    model.eval()
    last = losses[-by_epoch:]
    mean = sum(last) / len(last) if last else math.nan
    return model, Trained(*_files(model), steps, time.monotonic() - started_s, mean)


def projections(model: torch.nn.Module) -> list[str]:
    """Last names of the projections that are tuned: all of the layers', without output, router and experts."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    names = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D")
        and module is not head
        and ".experts." not in path
        and "router" not in path
    }
    kind = getattr(getattr(model, "config", None), "model_type", "")
    return sorted(names - _UNTOUCHED.get(kind, frozenset()))


#: What peft refuses to adapt: fused kernels of these models read the weights past the modules.
_UNTOUCHED = {
    kind: frozenset({"out_proj", "conv1d"}) for kind in ("mamba", "falcon_mamba", "mamba2", "falcon_h1", "bamba")
}


def _with_adapter(loaded: LoadedModel, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model

    names = projections(loaded.model)
    if not names:
        raise TuningError(f"{loaded.name} has no projections that an adapter could add to.")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,  # type: ignore[arg-type]  # a float is taken, whatever the annotation says
        lora_dropout=recipe.dropout,
        target_modules=names,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(loaded.model, config)


def _batch(examples: Sequence[Encoded], step: int, recipe: Recipe) -> list[Encoded]:
    """The examples of a step: each epoch sees all of them once, in an order of its own."""
    by_epoch = -(-len(examples) // recipe.batch_examples)
    epoch, place = divmod(step, by_epoch)
    source = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(examples), generator=source).tolist()
    return [examples[i] for i in order[place * recipe.batch_examples : (place + 1) * recipe.batch_examples]]


def _step(model: Any, batch: Sequence[Encoded], step: int, seed: int, device: torch.device) -> float:
    """Add up the gradients of a step; returns the mean loss by token."""
    torch.manual_seed(seed * 1_000_003 + step)  # of dropout: a resumed training draws the same
    count = sum(len(each.answer) for each in batch)
    total = 0.0
    for group in _passes(batch):
        loss = _loss(model, group, device) / count
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += float(loss.detach())
    return total


def _passes(examples: Sequence[Encoded]) -> list[list[Encoded]]:
    """Neighbours that go through the model together, padded to the longest."""
    groups: list[list[Encoded]] = []
    for each in examples:
        group = groups[-1] if groups else []
        longest = max([each.tokens, *(other.tokens for other in group)])
        if group and longest * (len(group) + 1) <= _PASS_TOKENS:
            group.append(each)
        else:
            groups.append([each])
    return groups


def _loss(model: Any, group: Sequence[Encoded], device: torch.device) -> torch.Tensor:
    """Summed negative log-likelihood of the answers."""
    length = max(each.tokens for each in group)
    tokens = torch.zeros(len(group), length, dtype=torch.long)
    mask = torch.zeros(len(group), length, dtype=torch.long)
    wanted = torch.full((len(group), length), _IGNORED, dtype=torch.long)
    for row, each in enumerate(group):
        tokens[row, : each.tokens] = torch.tensor(each.prompt + each.answer)
        mask[row, : each.tokens] = 1
        wanted[row, len(each.prompt) - 1 : each.tokens - 1] = torch.tensor(each.answer)
    places = (wanted != _IGNORED).any(0).nonzero()[:, 0]  # logits of a prompt would be most of the work for nothing
    tokens, mask, keep = tokens.to(device), mask.to(device), places.to(device)
    asked = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
    if "logits_to_keep" in inspect.signature(_inner(model).forward).parameters:
        logits = model(**asked, logits_to_keep=keep).logits
    else:
        logits = model(**asked).logits[:, keep]
    return F.cross_entropy(
        logits.float().flatten(0, 1), wanted[:, places].to(device).flatten(), ignore_index=_IGNORED, reduction="sum"
    )


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine."""
    warm_up = max(1, int(steps * _WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    way = (step - warm_up) / max(1, steps - warm_up)
    return _LEAST_RATE_SHARE + (1 - _LEAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * way))


def _save(folder: Path, key: str, step: int, parameters: Sequence[torch.Tensor], optimizer: Any) -> None:
    state = {"key": key, "step": step, "optimizer": optimizer.state_dict()}
    checkpoints.save(folder, {**state, "parameters": [each.detach().cpu() for each in parameters]})


def _resume(folder: Path, key: str, parameters: Sequence[torch.Tensor], optimizer: Any) -> int:
    """Take up a checkpoint of the same training; returns how many steps are done."""
    state = checkpoints.load(folder)
    if state is None or state["key"] != key:
        return 0
    with torch.no_grad():
        for parameter, kept in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _files(model: Any) -> tuple[dict[str, Any], bytes]:
    from peft import get_peft_model_state_dict

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    told = model.peft_config["default"].to_dict()
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in told.items()}
    plain["base_model_name_or_path"] = None  # a path of this machine; the store knows the model
    return {name: value for name, value in plain.items() if _is_json(value)}, save(state)


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """As plain data."""
    return asdict(recipe)
