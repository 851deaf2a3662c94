"""``python -m generation.tuning.run``: one training from its set to a stored adapter; a process of its own, for torch.

Standard input carries the job as one JSON object, so that no dialogue lies in a file or on a command line; the outcome
is one JSON object on standard output, progress is on standard error.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from generation.errors import GenerationError, TuningError
from generation.tuning.examples import Example, fingerprint, split
from generation.tuning.job import Job
from generation.tuning.report import Report

if TYPE_CHECKING:
    from generation.chat.loading import LoadedModel
    from generation.tuning.store import AdapterStore, TunedAdapter
    from generation.tuning.training import Recipe


def run(job: Job) -> dict[str, Any]:
    """Train, measure and store; nothing is promoted, for sources may have been deleted meanwhile.

    Returns:
        ``outcome`` is ``trained`` or ``unchanged``; ``adapter`` its id; ``report`` what ``Report.to_json`` gives.

    Raises:
        GenerationError: It cannot be done; the message says why.
    """
    from generation.chat.config import ChatConfig
    from generation.chat.loading import load
    from generation.tuning.store import AdapterStore

    recipe = _recipe(job.recipe)
    train_set, held_out = split(job.examples)
    if not train_set:
        raise TuningError("There is nothing to train on: all dialogues are held out. Approve more of them.")
    config = ChatConfig(
        model=job.model, data_dir=job.data_dir, device=job.device, threads=job.threads, dtype=_dtype(job)
    )
    loaded = load(config, _tell)
    key = fingerprint(job.examples, loaded.identity, recipe)
    store = AdapterStore(job.url)
    try:
        known = _unchanged(store, job, loaded.identity, key)
        if known is not None:
            return {"outcome": "unchanged", "adapter": known.adapter_id, "report": known.report}
        adapter, report = _trained(job, recipe, loaded, store, key, train_set, held_out)
        return {"outcome": "trained", "adapter": adapter.adapter_id, "report": report.to_json()}
    finally:
        store.close()


def _trained(
    job: Job,
    recipe: Recipe,
    loaded: LoadedModel,
    store: AdapterStore,
    key: str,
    train_set: list[Example],
    held_out: list[Example],
) -> tuple[TunedAdapter, Report]:
    from generation.tuning import evaluation, training

    current = store.answering(loaded.identity).get(job.tenant)
    lessons, asked = (training.encoded(each, loaded, recipe.max_tokens) for each in (train_set, held_out))
    _tell("measuring the model as it is", None)
    alone = training.perplexity(loaded.model, asked, loaded.device)
    folder = job.data_dir / "tuning" / key[:24]
    model, trained = training.train(loaded, lessons, recipe, folder, key, _show_step)
    after = training.perplexity(model, asked, loaded.device)
    files = {"new": (trained.config, trained.data)}
    if current is not None:
        files[current] = store.file(current)
        alone = _perplexity_with(model, files[current], asked, loaded)
    base = model.unload()  # the model's own modules again, as the engine wants them
    said = evaluation.answers(
        replace(loaded, model=base), held_out, files, [current or evaluation.ALONE, "new"], _show_answer
    )
    wanted = [each.answer for each in held_out]
    report = Report(
        before=evaluation.figures(said[current or evaluation.ALONE], wanted, alone),
        after=evaluation.figures(said["new"], wanted, after),
        against=current,
        train_examples=len(train_set),
        held_out_examples=len(held_out),
        steps=trained.steps,
        seconds=trained.seconds,
        loss=trained.loss,
    )
    sources = {each.source for each in job.examples}
    adapter = store.add(
        job.tenant, job.model, loaded.identity, key, trained.config, trained.data, report.to_json(), sources
    )
    shutil.rmtree(folder, ignore_errors=True)
    return adapter, report


def _perplexity_with(model: Any, file: tuple[dict[str, Any], bytes], asked: Any, loaded: LoadedModel) -> float:
    """Perplexity with the adapter that answers now, put beside the new one for a moment."""
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load

    from generation.tuning.training import perplexity

    config, data = file
    known = {name: config[name] for name in ("r", "lora_alpha", "target_modules", "bias", "task_type")}
    model.add_adapter("current", LoraConfig(**known))
    set_peft_model_state_dict(model, load(data), adapter_name="current")
    model.set_adapter("current")
    try:
        return perplexity(model.eval(), asked, loaded.device)
    finally:
        model.set_adapter("default")


def _recipe(told: dict[str, Any]) -> Recipe:
    from generation.tuning.training import Recipe

    try:
        return Recipe(**told)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise TuningError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}.") from None


def _dtype(job: Job) -> Any:
    """Gradients of a model on a CPU are right and fast in float32; a GPU computes in what it answers in."""
    from generation.torch_devices import choose_device

    return "float32" if job.dtype == "auto" and choose_device(job.device).type == "cpu" else job.dtype


def _unchanged(store: AdapterStore, job: Job, identity: str, key: str) -> TunedAdapter | None:
    """The adapter that came of the same set by the same recipe, unless it is to be made again."""
    if job.again:
        return None
    known = (each for each in store.all_of(job.tenant) if each.identity == identity and not each.stale)
    return next((each for each in known if each.fingerprint == key), None)


_LINE_EVERY_S = 0.5
_told_s = 0.0


def _tell(what: str, share: float | None = None) -> None:
    """One line that changes on a terminal, one line every few seconds elsewhere."""
    percent = "" if share is None else f" {share:.0%}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}{percent}")
    else:
        sys.stderr.write(f"{what}{percent}\n")
    sys.stderr.flush()


def _often(done: int, of: int) -> bool:
    global _told_s  # noqa: PLW0603 - one progress line a process
    now_s = time.monotonic()
    every_s = _LINE_EVERY_S if sys.stderr.isatty() else 10 * _LINE_EVERY_S
    if done < of and now_s - _told_s < every_s:
        return False
    _told_s = now_s
    return True


def _show_step(step: int, steps: int, loss: float) -> None:
    if _often(step, steps):
        _tell(f"training: step {step} of {steps}, loss {loss:.3f}")


def _show_answer(done: int, of: int) -> None:
    if _often(done, of):
        _tell(f"measuring: answer {done} of {of}")


def _failed(error: GenerationError) -> dict[str, Any]:
    return {"outcome": "failed", "message": str(error), "exit_code": error.exit_code}


def main() -> int:
    """Entry point of the process."""
    job = Job.from_json(sys.stdin.buffer.read())
    try:
        outcome = run(job)
    except ModuleNotFoundError as error:
        outcome = _failed(TuningError(f"Tuning needs {error.name}: pip install 'palaver[worker,tuning]'."))
    except GenerationError as error:
        outcome = _failed(error)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stdout.write(json.dumps(outcome) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
