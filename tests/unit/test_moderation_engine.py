"""The wrapper around an engine, with a scripted engine inside: what is let through, held back, refused."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from generation.errors import ModelNotFoundError
from generation.moderation import moderator as moderating
from generation.moderation.config import ModerationConfig
from generation.moderation.decided import Decided
from generation.moderation.engine import ModeratedEngine
from generation.moderation.moderator import Moderator
from generation.moderation.policy import CategoryRule, EffectivePolicy, Policy, WordList, default_policy
from generation.moderation.sentences import LEAST_WIDTH, SentenceBuffer, width
from generation.moderation.types import Action, Category, Finding
from generation.types import (
    ChatRequest,
    Delta,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    Failed,
    Finished,
    ImageRequest,
    Message,
    Origin,
    Picture,
    Progress,
    Usage,
)

RULES_ONLY = ModerationConfig(text_model="none", injection_model="none", image_model="none")
POLICY = Policy(lists=(WordList(words=("forbidden", "毒品")),)).at()


class Scripted:
    """Says for each request what its prompt tells it to say, a few characters a step."""

    def __init__(self, chars: int = 5) -> None:
        self.taken: list[EngineRequest] = []
        self.cancelled: list[str] = []
        self._chars = chars
        self._left: dict[str, str] = {}
        self.events: list[EngineEvent] = []
        self.info = EngineInfo("scripted", "test", "cpu", "none", 8, 100)

    @property
    def busy(self) -> bool:
        return bool(self._left or self.events)

    def submit(self, request: EngineRequest) -> None:
        self.taken.append(request)
        if isinstance(request, ChatRequest):
            self._left[request.request_id] = request.messages[-1].content

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)
        self._left.pop(request_id, None)

    def step(self) -> list[EngineEvent]:
        events, self.events = self.events, []
        for request_id, text in list(self._left.items()):
            events.append(Delta(request_id, text[: self._chars]))
            self._left[request_id] = text[self._chars :]
            if not self._left[request_id]:
                del self._left[request_id]
                events.append(Finished(request_id, "stop", Usage()))
        return events

    def close(self) -> None:
        self._left.clear()


class Says(Scripted):
    """Answers with a fixed text whatever it is asked."""

    def __init__(self, answer: str, chars: int = 5) -> None:
        super().__init__(chars)
        self._answer = answer

    def submit(self, request: EngineRequest) -> None:
        super().submit(request)
        self._left[request.request_id] = self._answer


def chat(text: str, policy: EffectivePolicy | None = POLICY, request_id: str = "r") -> ChatRequest:
    origin = Origin(f"guild__{request_id}", "guild", "somebody", policy)
    return ChatRequest(request_id, (Message("user", text),), origin=origin)


def run(engine: ModeratedEngine, *requests: EngineRequest) -> list[EngineEvent]:
    for request in requests:
        engine.submit(request)
    events: list[EngineEvent] = []
    while engine.busy:
        events += engine.step()
    return events


def moderated(inner: Scripted, config: ModerationConfig = RULES_ONLY) -> tuple[ModeratedEngine, list[Decided]]:
    told: list[Decided] = []
    return ModeratedEngine(inner, Moderator(config, images=True), default_policy(), told.extend), told


def text_of(events: Sequence[EngineEvent], request_id: str = "r") -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.request_id == request_id)


def test_a_refused_prompt_never_reaches_the_model() -> None:
    inner = Scripted()
    engine, told = moderated(inner)
    (event,) = run(engine, chat("tell me f0rb1dden things"))
    assert isinstance(event, Failed)
    assert (event.code, event.retryable) == ("refused", False)
    assert "words that are not allowed here" in event.message
    assert "appeal" in event.message
    assert "forbidden" not in event.message.lower().replace("are not allowed", "")
    assert inner.taken == []
    (decided,) = told
    assert decided.origin.job_id == "guild__r"
    assert decided.decision.action is Action.REFUSE


def test_an_innocent_answer_arrives_unchanged() -> None:
    answer = "One sentence here. Another one! 第三句话是中文。And\na list:\n- a\n- b\n\nlast words without an end"
    engine, _ = moderated(Says(answer))
    events = run(engine, chat("hello"))
    assert text_of(events) == answer
    assert isinstance(events[-1], Finished)


def test_an_unsafe_sentence_is_never_shown_not_even_in_part() -> None:
    inner = Says("This part is quite fine. Now comes a for" + "bidden thing. And more.")
    engine, _ = moderated(inner)
    events = run(engine, chat("hello"))
    assert text_of(events).strip() == "This part is quite fine."
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "refused"
    assert inner.cancelled == ["r"]
    assert not engine.busy


@pytest.mark.parametrize("word", ["f o r b i d d e n", "f.o.r.b.i.d.d.e.n", "for\nbidden", "毒\n品"])
def test_a_word_across_sentences_is_not_completed(word: str) -> None:
    engine, _ = moderated(Says(f"This is a longer beginning {word} and an end.", chars=1))
    events = run(engine, chat("hello"))
    assert isinstance(events[-1], Failed)
    assert "den" not in text_of(events)
    assert "品" not in text_of(events)


@given(st.text(alphabet=st.sampled_from("ab .!?\n。,"), max_size=400), st.integers(1, 40))
@settings(max_examples=60)
def test_sentences_lose_nothing_and_are_long_enough(text: str, step: int) -> None:
    buffer = SentenceBuffer()
    pieces = [piece for at in range(0, len(text), step) for piece in buffer.push(text[at : at + step])]
    assert "".join(pieces) + buffer.rest() == text
    assert all(width(piece) >= LEAST_WIDTH for piece in pieces)


def test_at_most_one_sentence_is_held_back() -> None:
    buffer = SentenceBuffer()
    assert buffer.push("This is the first sentence. And this is the sec") == ["This is the first sentence."]
    assert buffer.push("ond one. ") == [" And this is the second one."]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Sure!", " Here it is.", " Yes?"],
        ["好的！", "今天天气很好。", "你呢？"],
        ["はい。", "そうです！"],
        ["यह ठीक है।", " फिर मिलेंगे।"],
        ["هل هذا جيد؟", " نعم.", " شكرا۔"],
        ["import os\n", "print(os.name)\n", "x = 1\n"],
    ],
)
def test_a_sentence_is_shown_when_the_next_begins_in_any_script(sentences: list[str]) -> None:
    buffer = SentenceBuffer()
    text = "".join(sentences) + " "
    held = ""
    for character in text:
        held = (held + character).removeprefix("".join(buffer.push(character)))
        begun = [sentence for sentence in sentences if sentence.strip() and sentence in held]
        assert len(begun) <= 1, held


def test_a_long_sentence_is_held_back_in_parts() -> None:
    for sign in ("然后我们继续往前走，", "そして私は歩き、", "and then we went on "):
        buffer, shown, longest = SentenceBuffer(), 0, 0
        for count, character in enumerate(sign * 100, 1):
            shown += sum(map(len, buffer.push(character)))
            longest = max(longest, width(sign) * (count - shown) // len(sign))
        assert longest < 340


def test_an_endless_sentence_is_cut() -> None:
    buffer = SentenceBuffer()
    assert "".join(buffer.push("word " * 200)).count("word") > 100
    assert sum(map(len, SentenceBuffer().push("x" * 2_000))) >= 1_200


def test_masked_data_reaches_neither_the_model_nor_the_reader() -> None:
    inner = Scripted()
    engine, _ = moderated(inner)
    events = run(engine, chat("please repeat: mail joe@example.com today."))
    assert inner.taken[0].messages[-1].content == "please repeat: mail [e-mail] today."  # type: ignore[union-attr]
    assert "joe@" not in text_of(events)
    engine, _ = moderated(Says("Write to joe@example.com. It is a fine address."))
    assert text_of(run(engine, chat("whom?"))) == "Write to [e-mail]. It is a fine address."


def test_a_warning_comes_with_the_end() -> None:
    policy = Policy(
        lists=(WordList(words=("darn",)),), categories={Category.BLOCKED_WORDS: CategoryRule(action=Action.WARN)}
    ).at()
    engine, _ = moderated(Says("Well, darn it all. That is that."))
    events = run(engine, chat("hello", policy))
    assert text_of(events).startswith("Well, darn it all. That is that.\n\n⚠")
    assert isinstance(events[-1], Finished)


def test_shadow_mode_records_and_shows() -> None:
    policy = Policy(lists=(WordList(words=("forbidden",)),), shadow=True).at()
    engine, told = moderated(Says("A forbidden thing."))
    events = run(engine, chat("a forbidden question", policy))
    assert text_of(events) == "A forbidden thing."
    verdicts = [decided.decision.decisive for decided in told]
    assert any(v is not None and v.shadow and v.action is Action.REFUSE for v in verdicts)


def test_many_requests_are_judged_each_by_its_own_policy() -> None:
    lax = Policy().at()
    engine, _ = moderated(Scripted())
    events = run(engine, chat("a forbidden thing here.", POLICY, "a"), chat("a forbidden thing here.", lax, "b"))
    assert text_of(events, "a") == ""
    assert text_of(events, "b") == "a forbidden thing here."
    assert {event.request_id: type(event) for event in events if not isinstance(event, Delta)} == {
        "a": Failed,
        "b": Finished,
    }


def test_a_request_can_be_cancelled_before_and_after_its_prompt_was_checked() -> None:
    inner = Says("A long answer that goes on. And on. And on.")
    engine, _ = moderated(inner)
    engine.submit(chat("hello"))
    engine.cancel("r")
    assert engine.step() == []
    engine.submit(chat("hello"))
    engine.step()
    engine.cancel("r")
    assert engine.step() == []
    assert not engine.busy


class Broken:
    """A filter that crashes."""

    def findings(self, things: Sequence[object]) -> list[list[Finding]]:
        raise RuntimeError("tensor of the wrong shape")


def test_a_filter_that_crashes_fails_closed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    engine, _ = moderated(Says("An answer that is quite fine."))
    engine._moderator._text._classifiers = (Broken(),)  # type: ignore[union-attr]
    (event,) = run(engine, chat("hello"))
    assert isinstance(event, Failed)
    assert (event.code, event.retryable) == ("moderation_unavailable", True)
    assert "safety check is not working" in event.message
    assert "withheld" in caplog.text


def test_a_filter_that_crashes_on_the_answer_shows_nothing_of_it() -> None:
    inner = Says("An answer that is quite fine. Really.")
    engine, _ = moderated(inner)
    engine.submit(chat("hello"))
    engine.step()
    engine._moderator._text._classifiers = (Broken(),)  # type: ignore[union-attr]
    events: list[EngineEvent] = []
    while engine.busy:
        events += engine.step()
    assert text_of(events) == ""
    assert isinstance(events[-1], Failed)
    assert inner.cancelled == ["r"]


def test_a_filter_that_cannot_be_loaded_fails_closed_and_recovers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = moderating.load_text_stage

    def missing(*_: object) -> None:
        raise ModelNotFoundError("toxic-comment-classifier 0.3.0 could not be fetched from pypi.")

    monkeypatch.setattr(moderating, "load_text_stage", missing)
    inner = Says("An answer.")
    engine, _ = moderated(inner)
    (event,) = run(engine, chat("hello"))
    assert isinstance(event, Failed)
    assert event.code == "moderation_unavailable"
    assert inner.taken == []
    assert "could not be fetched" in caplog.text
    monkeypatch.setattr(moderating, "load_text_stage", real)
    engine._moderator._load_at = 0.0
    assert text_of(run(engine, chat("hello"))) == "An answer."


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 10).convert("RGB").save(out, "PNG")
    return out.getvalue()


class Sees:
    """An image classifier that is sure."""

    def __init__(self, score: float) -> None:
        self._score = score

    def findings(self, pictures: Sequence[bytes]) -> list[list[Finding]]:
        return [[Finding(Category.SEXUAL, self._score, "model:test", "1")] for _ in pictures]


def draw(
    score: float, prompt: str = "a tree", policy: EffectivePolicy | None = None
) -> tuple[list[EngineEvent], Scripted]:
    inner = Scripted()
    engine, _ = moderated(inner)
    engine._moderator._classifier = Sees(score)
    engine.submit(ImageRequest("r", prompt, origin=Origin("g__r", "g", "u", policy)))
    engine.step()
    inner.events = [
        Progress("r", 1, 4),
        Progress("r", 2, 4, png()),
        Picture("r", 0, png(), "image/png", 64, 64, 7),
        Finished("r", "stop", Usage()),
    ]
    return engine.step(), inner


def test_a_harmless_picture_and_its_previews_are_let_through() -> None:
    events, _ = draw(0.01)
    assert [type(event) for event in events] == [Progress, Progress, Picture, Finished]
    assert events[1] == Progress("r", 2, 4, png())
    assert isinstance(events[2], Picture)
    assert not events[2].covered


def test_an_unsafe_picture_leaves_in_no_form() -> None:
    events, inner = draw(0.99)
    assert not [event for event in events if isinstance(event, Picture) or getattr(event, "preview", None)]
    assert isinstance(events[-1], Failed)
    assert events[-1].message.startswith("The picture was stopped (category: sexual content).")
    assert inner.cancelled == ["r"]


def test_what_an_nsfw_channel_blurs_is_covered_and_its_preview_unrecognisable() -> None:
    events, _ = draw(0.99, policy=Policy().at(nsfw=True))
    preview = next(event.preview for event in events if isinstance(event, Progress) and event.preview)
    assert preview != png()
    with Image.open(io.BytesIO(preview)) as hidden, Image.open(io.BytesIO(png())) as shown:
        assert hidden.size == shown.size
    picture = next(event for event in events if isinstance(event, Picture))
    assert picture.covered
    assert picture.data == png()


def test_minors_are_never_shown_whatever_the_channel() -> None:
    policy = Policy(shadow=True, exempt={"admin": ("*",)}).at(nsfw=True, roles=["admin"])
    events, _ = draw(0.5, "a girl at the beach", policy)
    assert isinstance(events[-1], Failed)
    assert "endangers minors" in events[-1].message
    assert "appeal" not in events[-1].message
