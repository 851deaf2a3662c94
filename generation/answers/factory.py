"""The one entry point of an engine process for answers: from options to an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generation.errors import InvalidRequestError
from generation.moderation.factory import moderated
from generation.types import AnswerRequest, Engine


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[AnswerRequest]:
    """Open the store, load the embedding model, and put moderation around it if the options have some.

    Args:
        options: ``data_dir``, ``url`` of the store or None for the embedded one, ``model`` that embeds, and under
            ``moderation`` the fields of ``ModerationConfig``.
        progress: Told what is being done.

    Raises:
        GenerationError: An option is wrong, the store cannot be opened or the model cannot be had.
    """
    return moderated(_build, options, progress)


def _build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[AnswerRequest]:
    unknown = set(options) - {"data_dir", "device", "url", "model", "reranker", "networks"}
    if unknown:
        raise InvalidRequestError(f"An answer engine has no option {min(unknown)}.")
    from generation.answers.engine import AnswerEngine  # with numpy and SQLAlchemy, a good part of a second
    from generation.retrieval.embedding import load_embedder
    from generation.retrieval.knowledge import Knowledge, default_url
    from generation.retrieval.reranking import load_reranker

    progress("loading the model that compares questions with passages", None)
    embedder = load_embedder(str(options.get("model") or "use-v3"))
    embedder.encode(["ready"])  # what is missing is told now, and the first question does not wait for it
    data_dir = Path(str(options["data_dir"]))
    data_dir.mkdir(parents=True, exist_ok=True)
    reranker = load_reranker(str(options.get("reranker") or ""))
    knowledge = Knowledge(str(options.get("url") or default_url(data_dir)), embedder, reranker=reranker)
    return AnswerEngine(knowledge, embedder.name)
