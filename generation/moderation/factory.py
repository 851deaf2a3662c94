"""From a worker's options to a moderated engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generation.moderation.config import ModerationConfig
from generation.types import Engine

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
    config = ModerationConfig.from_options({**wanted, "data_dir": own.get("data_dir") or wanted.get("data_dir")})
    from generation.moderation.engine import ModeratedEngine
    from generation.moderation.moderator import Moderator
    from generation.moderation.policy import default_policy
    from generation.moderation.record import open_record
    from generation.moderation.text import TextClassifier

    engine = build(own, progress)
    judges: list[TextClassifier] = []
    if config.chat_judge and not images and config.text_model in ("jigsaw-bilstm", "none"):
        from generation.moderation.judge import ChatJudge
        from generation.moderation.shared_engine import SharedEngine

        engine = SharedEngine(engine)
        judges.append(ChatJudge(engine))
    moderator = Moderator(config, progress, images=images, judges=judges)
    return ModeratedEngine(engine, moderator, default_policy(config.strictness), open_record(config).decided)
