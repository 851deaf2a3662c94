"""From a worker's options to a moderated engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from generation.moderation.config import ModerationConfig
from generation.moderation.guard import GuardModel
from generation.moderation.guard_families import family_of
from generation.moderation.judge import ChatJudge
from generation.moderation.moderator import Moderator
from generation.moderation.shared_engine import SharedEngine
from generation.types import Engine

_LOG = logging.getLogger("palaver.moderation")

Progress = Callable[[str, float | None], None]

#: Where a worker's options carry those of moderation.
OPTION = "moderation"


def moderated(
    build: Callable[[dict[str, object], Progress], Engine[Any]],
    options: dict[str, object],
    progress: Progress,
    *,
    images: bool = False,
) -> Engine[Any]:
    """Build an engine and put moderation around it, unless the options have none.

    Args:
        build: Makes the engine from its own options.
        options: Those, and under ``moderation`` the fields of ``ModerationConfig``.
        progress: Told what is being done.
        images: Whether it makes pictures.

    Raises:
        GenerationError: An option is wrong, or the engine cannot be built. A moderation model that cannot be loaded is
            no reason: the engine runs, and refuses.
    """
    own = dict(options)
    wanted = own.pop(OPTION, None)
    if not isinstance(wanted, dict):
        return build(own, progress)
    config = ModerationConfig.from_options(
        {
            **wanted,
            "data_dir": own.get("data_dir") or wanted.get("data_dir"),
            **{name: own.get(name) for name in ("device", "dtype", "threads")},
        }
    )
    from generation.moderation.engine import ModeratedEngine
    from generation.moderation.policy import default_policy
    from generation.moderation.record import open_record

    def bare() -> Engine[Any]:
        return build(own, progress)

    if not images and config.chat_judge and not config.has_guard:
        engine, moderator = _judged(bare, config, progress)
    elif config.has_guard and config.text_model == own.get("model"):
        engine, moderator = _guarded_by_itself(bare, config, progress)
    elif config.has_guard:
        engine, moderator = _guarded(bare, config, progress, images=images)
    else:
        engine, moderator = bare(), Moderator(config, progress, images=images)
    return ModeratedEngine(engine, moderator, default_policy(config.strictness), open_record(config).decided)


Built = tuple[Engine[Any], Moderator]


def _judged(build: Callable[[], Engine[Any]], config: ModerationConfig, progress: Progress) -> Built:
    """The chat model judges Chinese texts itself."""
    _LOG.warning("moderation.chat_judge is as good as the chat model's Chinese; the embedded model has none.")
    shared = SharedEngine(build(), answers_questions=True)
    return shared, Moderator(config, progress, judges=[ChatJudge(shared.questions())])


def _guarded_by_itself(build: Callable[[], Engine[Any]], config: ModerationConfig, progress: Progress) -> Built:
    """The chat model is the guard model: one engine serves both."""
    shared = SharedEngine(build(), answers_questions=True)
    guard = GuardModel(shared.questions(), family_of(config.text_model), shared.info.model)
    return shared, Moderator(replace(config, text_model="none"), progress, judges=[guard])


def _guarded(build: Callable[[], Engine[Any]], config: ModerationConfig, progress: Progress, *, images: bool) -> Built:
    """A guard model in a chat engine of its own; it is loaded first, and the engine takes what memory it leaves."""
    shared: SharedEngine | None = None

    def meanwhile() -> None:
        if shared is not None:
            shared.go_on()

    moderator = Moderator(config, progress, images=images, meanwhile=meanwhile)
    shared = SharedEngine(build())
    return shared, moderator
