"""An engine around an engine: prompts are checked before they cost anything, and nothing is shown unchecked.

Text is held back until its sentence is complete and then checked, so that at most one sentence is held back and what
was shown is never withdrawn. Everything that is ready in a step is checked together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from generation.errors import FinalRefusalError, ModerationUnavailableError, RefusedContentError
from generation.moderation.decided import Decided
from generation.moderation.image import blurred
from generation.moderation.moderator import Moderator, Passage
from generation.moderation.policy import EffectivePolicy
from generation.moderation.refusals import appealable, refusal, warning
from generation.moderation.sentences import SentenceBuffer
from generation.moderation.types import Action, Decision, Stage
from generation.types import (
    AnswerRequest,
    Delta,
    Engine,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    Failed,
    Finished,
    Grounds,
    ImageRequest,
    Message,
    Origin,
    Picture,
    Progress,
)

#: How much of what was shown is read again with the next sentence: a word may begin there.
_CARRIED_CHARS = 60


Recorder = Callable[[Sequence[Decided]], None]


@dataclass(slots=True)
class _Flight:
    """A request that the inner engine is busy with."""

    request: EngineRequest
    policy: EffectivePolicy
    buffer: SentenceBuffer = field(default_factory=SentenceBuffer)
    shown: str = ""
    warned: Decision | None = None
    worst: Decision | None = None


class ModeratedEngine:
    """Moderates another engine's requests and events; see ``generation.types.Engine``.

    Args:
        inner: What computes.
        moderator: What decides.
        default: The policy of requests that bring none.
        record: Told every decision that stops something, and one a request and stage otherwise.
    """

    def __init__(
        self, inner: Engine[Any], moderator: Moderator, default: EffectivePolicy, record: Recorder = lambda _: None
    ) -> None:
        self._inner = inner
        self._moderator = moderator
        self._default = default
        self._record = record
        self._waiting: dict[str, EngineRequest] = {}
        self._flights: dict[str, _Flight] = {}
        self._decided: list[Decided] = []
        self._verdicts: Counter[tuple[str, str]] = Counter()

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._inner.info

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return bool(self._waiting) or self._inner.busy

    def submit(self, request: EngineRequest) -> None:
        """Take a request; its prompt is checked by the next step.

        Raises:
            ValueError: A request with this id is in flight.
        """
        if request.request_id in self._waiting or request.request_id in self._flights:
            raise ValueError(f"A request with the id {request.request_id!r} is in flight already.")
        self._waiting[request.request_id] = request

    def cancel(self, request_id: str) -> None:
        """Forget a request, and the text of it that is held back."""
        self._waiting.pop(request_id, None)
        self._flights.pop(request_id, None)
        self._inner.cancel(request_id)

    def step(self) -> list[EngineEvent]:
        """Check new prompts, run one step, and let through what may be shown."""
        events = self._admit()
        if self._inner.busy:
            events += self._let_through(self._inner.step())
        if self._decided:
            decided, self._decided = self._decided, []
            verdicts = (verdict for each in decided for verdict in each.decision.verdicts)
            acting = (each for each in verdicts if each.action is not Action.ALLOW)
            self._verdicts.update((each.category.value, each.action.value) for each in acting)
            self._record(decided)
        return events

    def take_verdicts(self) -> Mapping[tuple[str, str], int]:
        """How often each category led to each action since this was last asked; see ``generation.types.Judging``."""
        taken, self._verdicts = self._verdicts, Counter()
        return taken

    def close(self) -> None:
        """Release what is held; idempotent."""
        self._waiting.clear()
        self._flights.clear()
        self._inner.close()

    # Prompts

    def _admit(self) -> list[EngineEvent]:
        """Check what is waiting, all at once, and hand on what is allowed."""
        requests, self._waiting = list(self._waiting.values()), {}
        if not requests:
            return []
        policies = [_policy(request, self._default) for request in requests]
        passages = [
            Passage(text, policy)
            for request, policy in zip(requests, policies, strict=True)
            for text in _inputs(request)
        ]
        try:
            decisions = iter(self._moderator.prompts(passages))
        except ModerationUnavailableError as error:
            return [_unavailable(request.request_id, error) for request in requests]
        events: list[EngineEvent] = []
        for request, policy in zip(requests, policies, strict=True):
            texts = _inputs(request)
            judged = [(text, next(decisions)) for text in texts]
            for text, decision in judged:
                self._note(request.origin, decision, text, policy)
            stopped = next((decision for _, decision in judged if decision.action.stops), None)
            if stopped is not None:
                events.append(_refused(request.request_id, stopped, policy))
                continue
            self._flights[request.request_id] = _Flight(request, policy)
            self._inner.submit(_masked(request, judged))
        return events

    # Output

    def _let_through(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        """Judge everything a step brought, together, and keep the order of events."""
        passages: list[tuple[str, Passage]] = []
        for event in events:
            flight = self._flights.get(event.request_id)
            if flight is None:
                continue
            pieces: list[str] = []
            if isinstance(event, Delta):
                pieces = flight.buffer.push(event.text)
            elif isinstance(event, Finished) and (rest := flight.buffer.rest()):
                pieces = [rest]
            before = flight.shown
            for piece in pieces:
                passages.append((event.request_id, Passage(piece, flight.policy, before[-_CARRIED_CHARS:])))
                before += piece
            flight.shown = before[-_CARRIED_CHARS:]
        shown = self._judge_texts(passages)
        shown += self._judge_pictures([event for event in events if isinstance(event, Picture | Progress)])
        for event in events:
            if isinstance(event, Grounds) and event.request_id in self._flights:
                shown.append(event)
        for event in events:
            if isinstance(event, Finished | Failed) and event.request_id in self._flights:
                shown += self._end(event)
        return shown

    def _judge_texts(self, passages: Sequence[tuple[str, Passage]]) -> list[EngineEvent]:
        if not passages:
            return []
        try:
            decisions = self._moderator.sentences([passage for _, passage in passages])
        except ModerationUnavailableError as error:
            return [self._stop(request_id, error) for request_id in dict.fromkeys(name for name, _ in passages)]
        shown: list[EngineEvent] = []
        for (request_id, passage), decision in zip(passages, decisions, strict=True):
            flight = self._flights.get(request_id)
            if flight is None:
                continue  # stopped by an earlier sentence
            if decision.action.stops:
                self._note(flight.request.origin, decision, passage.text, flight.policy)
                shown.append(self._stop(request_id, _refusal(decision, flight.policy)))
                continue
            self._remember(flight, decision, passage.text)
            hidden = decision.action in (Action.MASK, Action.BLUR)
            shown.append(Delta(request_id, decision.masked(passage.text) if hidden else passage.text))
        return shown

    def _judge_pictures(self, events: Sequence[Picture | Progress]) -> list[EngineEvent]:
        shown: list[EngineEvent] = []
        for kind in (Progress, Picture):
            judged: list[tuple[Picture | Progress, bytes]] = []
            for event in events:
                if isinstance(event, kind) and event.request_id in self._flights:
                    data = event.preview if isinstance(event, Progress) else event.data
                    if data is None:
                        shown.append(event)
                    else:
                        judged.append((event, data))
            shown += self._judge_encoded(judged)
        return shown

    def _judge_encoded(self, judged: Sequence[tuple[Picture | Progress, bytes]]) -> list[EngineEvent]:
        if not judged:
            return []
        flights = [self._flights[event.request_id] for event, _ in judged]
        stage: Stage = "preview" if isinstance(judged[0][0], Progress) else "image"
        asked = [
            (data, _prompt(flight.request), flight.policy) for (_, data), flight in zip(judged, flights, strict=True)
        ]
        try:
            decisions = self._moderator.pictures(asked, stage)
        except ModerationUnavailableError as error:
            return [self._stop(request_id, error) for request_id in dict.fromkeys(e.request_id for e, _ in judged)]
        shown: list[EngineEvent] = []
        for (event, data), flight, decision in zip(judged, flights, decisions, strict=True):
            if event.request_id not in self._flights:
                continue
            if decision.action.stops or stage == "image":
                self._note(flight.request.origin, decision, "", flight.policy)
            if decision.action.stops:
                shown.append(self._stop(event.request_id, _refusal(decision, flight.policy)))
            elif decision.action in (Action.MASK, Action.BLUR):
                shown.append(_hidden(event, data))
            else:
                shown.append(event)
        return shown

    # Ends

    def _end(self, event: Finished | Failed) -> list[EngineEvent]:
        flight = self._flights.pop(event.request_id)
        events: list[EngineEvent] = []
        if flight.worst is not None:
            self._note(flight.request.origin, flight.worst, "", flight.policy)
        if flight.warned is not None and isinstance(event, Finished):
            events.append(Delta(event.request_id, warning(flight.warned)))
        return [*events, event]

    def _stop(self, request_id: str, error: RefusedContentError | ModerationUnavailableError) -> Failed:
        self._flights.pop(request_id, None)
        self._inner.cancel(request_id)
        return Failed(request_id, error.code, str(error), error.retryable)

    def _remember(self, flight: _Flight, decision: Decision, text: str) -> None:
        """One line of the record for an answer, and each for what was acted upon."""
        verdict = decision.decisive
        if verdict is not None and verdict.action is not Action.ALLOW:
            self._note(flight.request.origin, decision, text, flight.policy)
        if decision.action is Action.WARN:
            flight.warned = flight.warned or decision
        if flight.worst is None or _closeness(decision) > _closeness(flight.worst):
            flight.worst = decision

    def _note(self, origin: Origin | None, decision: Decision, text: str, policy: EffectivePolicy) -> None:
        if origin is not None:
            self._decided.append(Decided(origin, decision, text, policy))


def _policy(request: EngineRequest, default: EffectivePolicy) -> EffectivePolicy:
    policy = request.origin.policy if request.origin else None
    return policy or default


def _inputs(request: EngineRequest) -> list[str]:
    """What of a request is new: the rest was checked when it was."""
    if isinstance(request, ImageRequest):
        return [text for text in (request.prompt, request.negative_prompt) if text] or [""]
    if isinstance(request, AnswerRequest):
        return [request.question]
    return [request.messages[-1].content if request.messages else ""]


def _prompt(request: EngineRequest) -> str:
    return request.prompt if isinstance(request, ImageRequest) else ""


def _masked(request: EngineRequest, judged: Sequence[tuple[str, Decision]]) -> EngineRequest:
    """The request as the model gets it: without what the policy hides."""
    if not any(decision.action in (Action.MASK, Action.BLUR) for _, decision in judged):
        return request
    hidden = {text: decision.masked(text) for text, decision in judged}
    if isinstance(request, ImageRequest):
        prompt = hidden.get(request.prompt, request.prompt)
        return replace(
            request, prompt=prompt, negative_prompt=hidden.get(request.negative_prompt, request.negative_prompt)
        )
    if isinstance(request, AnswerRequest):
        return replace(request, question=hidden.get(request.question, request.question))
    last = request.messages[-1]
    return replace(request, messages=(*request.messages[:-1], Message(last.role, hidden[last.content])))


def _hidden(event: Picture | Progress, data: bytes) -> EngineEvent:
    """A preview that shows nothing, or a picture that is posted behind a cover."""
    if isinstance(event, Picture):
        return replace(event, covered=True)
    return replace(event, preview=blurred(data))


def _refused(request_id: str, decision: Decision, policy: EffectivePolicy) -> Failed:
    error = _refusal(decision, policy)
    return Failed(request_id, error.code, str(error))


def _refusal(decision: Decision, policy: EffectivePolicy) -> RefusedContentError:
    kind = RefusedContentError if appealable(decision) else FinalRefusalError
    return kind(refusal(decision, policy))


def _unavailable(request_id: str, error: ModerationUnavailableError) -> Failed:
    return Failed(request_id, error.code, str(error), error.retryable)


def _closeness(decision: Decision) -> float:
    verdict = decision.decisive
    return verdict.score - verdict.threshold if verdict else -1.0
