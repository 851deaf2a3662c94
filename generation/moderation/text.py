"""The second stage for texts: classifiers, asked about many texts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from generation.moderation.config import ModerationConfig
from generation.moderation.types import Finding

Progress = Callable[[str, float | None], None]


class TextClassifier(Protocol):
    """What sees things in texts."""

    def findings(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What is seen in each text."""
        ...


class TextStage:
    """The text models of an engine process.

    Args:
        classifiers: Asked about everything.
        detectors: Asked about what goes into the model: prompts, and texts that are quoted in them.
    """

    def __init__(self, classifiers: Sequence[TextClassifier], detectors: Sequence[TextClassifier] = ()) -> None:
        self._classifiers = tuple(classifiers)
        self._detectors = tuple(detectors)

    def inputs(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What is seen in texts that the model is to read."""
        return _together((*self._classifiers, *self._detectors), texts)

    def outputs(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What is seen in texts that the model wrote."""
        return _together(self._classifiers, texts)


def load_text_stage(
    config: ModerationConfig,
    progress: Progress,
    judges: Sequence[TextClassifier] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> TextStage:
    """Load the text models that are configured.

    Args:
        config: Which.
        progress: Told what is being loaded.
        judges: Asked as well, about everything.
        meanwhile: What has to go on while a guard model is asked.

    Raises:
        GenerationError: One cannot be had or loaded.
    """
    from generation.moderation.weights import JIGSAW, NANOGUARD, installed  # torch's neighbours: only where models run

    classifiers: list[TextClassifier] = [*judges]
    if config.text_model == JIGSAW.name:
        from generation.moderation.toxicity import ToxicityClassifier

        classifiers.append(ToxicityClassifier(installed(JIGSAW, config.data_dir, progress)))
    elif config.has_guard:
        from generation.moderation.guard import load_guard

        classifiers.append(load_guard(config, progress, meanwhile))
    detectors: list[TextClassifier] = []
    if config.injection_model == NANOGUARD.name:
        from generation.moderation.injection import InjectionDetector

        detectors.append(InjectionDetector(installed(NANOGUARD, config.data_dir, progress)))
    return TextStage(classifiers, detectors)


def _together(classifiers: Sequence[TextClassifier], texts: Sequence[str]) -> list[list[Finding]]:
    told: list[list[Finding]] = [[] for _ in texts]
    for classifier in classifiers if texts else ():
        for place, found in enumerate(classifier.findings(texts)):
            told[place] += found
    return told
