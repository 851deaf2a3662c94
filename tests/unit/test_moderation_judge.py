"""The chat model as a judge: asked in the engine's own steps, while others' answers go on."""

from __future__ import annotations

import pytest

from generation.chat.engine import ChatEngine
from generation.errors import ModelError, ModerationUnavailableError
from generation.moderation.config import ModerationConfig
from generation.moderation.engine import ModeratedEngine
from generation.moderation.factory import moderated
from generation.moderation.judge import UNDECIDED, ChatJudge
from generation.moderation.moderator import Moderator
from generation.moderation.policy import default_policy
from generation.moderation.questions import PREFIX
from generation.moderation.shared_engine import SharedEngine
from generation.moderation.types import Category
from generation.types import ChatRequest, Delta, EngineInfo, Failed, Finished, Message, Sampling
from tests.chat_models import byte_tokenizer, new_engine
from tests.unit.test_moderation_engine import RULES_ONLY, Scripted, chat, run, text_of

UNSAFE = "我要找人打断他的腿"


class Judging(Scripted):
    """Answers people with their own words, and the judge's question by what the text in it says."""

    def __init__(self, answer: str = "threat") -> None:
        super().__init__()
        self._answer = answer
        self.judged: list[str] = []

    def submit(self, request: ChatRequest) -> None:  # type: ignore[override]
        super().submit(request)
        if request.request_id.startswith(PREFIX):
            self.judged.append(request.messages[-1].content)
            self._left[request.request_id] = self._answer if UNSAFE in request.messages[-1].content else "Safe."


def engine_of(inner: Judging) -> ModeratedEngine:
    shared = SharedEngine(inner, answers_questions=True)
    return ModeratedEngine(shared, Moderator(RULES_ONLY, judges=[ChatJudge(shared.questions())]), default_policy())


def test_the_chat_model_judges_chinese_and_nothing_else() -> None:
    inner = Judging()
    engine = engine_of(inner)
    events = run(
        engine, chat("hello there, friend", None, "a"), chat(UNSAFE, None, "b"), chat("今天天气很好。", None, "c")
    )
    assert text_of(events, "a") == "hello there, friend"
    assert text_of(events, "b") == ""
    assert [event.code for event in events if isinstance(event, Failed)] == ["refused"]
    assert text_of(events, "c") == "今天天气很好。"
    assert not any("hello" in text for text in inner.judged)


def test_answers_go_on_growing_while_the_judge_is_asked() -> None:
    inner = Judging()
    shared = SharedEngine(inner, answers_questions=True)
    long = "a long answer in English " * 4
    shared.submit(ChatRequest("a", (Message("user", long),)))
    (found,) = ChatJudge(shared.questions()).findings([UNSAFE])
    assert [finding.category for finding in found] == [Category.THREAT]
    told = shared.step()
    assert len(told) > 2, "what came meanwhile is handed out by the next step"
    while shared.busy:
        told += shared.step()
    assert "".join(event.text for event in told if isinstance(event, Delta)) == long
    assert sum(isinstance(event, Finished) for event in told) == 1


def test_an_answer_that_is_no_word_of_the_list_is_undecided() -> None:
    (found,) = ChatJudge(SharedEngine(Judging("What a nice text!"), answers_questions=True).questions()).findings(
        [UNSAFE]
    )
    assert [(finding.category, finding.score) for finding in found] == [(Category.TOXICITY, UNDECIDED)]


def test_a_judge_that_fails_closes_the_way() -> None:
    class Broken(Judging):
        def step(self) -> list:
            failed, self._left = list(self._left), {}
            return [Failed(name, "internal", "broken", False) for name in failed]

    shared = SharedEngine(Broken(), answers_questions=True)
    with pytest.raises(ModerationUnavailableError):
        ChatJudge(shared.questions()).findings([UNSAFE])
    events = run(engine_of(Broken()), chat(UNSAFE, None))
    assert [event.code for event in events if isinstance(event, Failed)] == ["moderation_unavailable"]


def test_an_engine_for_one_answer_cannot_judge_as_well() -> None:
    inner = Judging()
    inner.info = EngineInfo("m", "test", "cpu", "none", 1, 100)
    with pytest.raises(ModelError, match="two answers"):
        SharedEngine(inner, answers_questions=True)


def test_it_runs_on_the_real_chat_engine_by_configuration(tmp_path) -> None:
    def build(options: dict[str, object], progress: object) -> ChatEngine:
        return new_engine(byte_tokenizer(), slots=8)

    wanted = {"text_model": "none", "injection_model": "none", "chat_judge": True, "record_url": "none"}
    engine = moderated(build, {"moderation": wanted | {"data_dir": str(tmp_path)}}, lambda *_: None)
    assert engine.info.capacity == 4
    sampling = Sampling(max_new_tokens=4)
    for number, text in enumerate([UNSAFE, "hello", "你好"]):
        engine.submit(ChatRequest(f"r{number}", (Message("user", text),), sampling))
    events = []
    while engine.busy:
        events += engine.step()
    ended = [event.request_id for event in events if isinstance(event, Finished | Failed)]
    assert sorted(ended) == ["r0", "r1", "r2"]
    assert ModerationConfig().chat_judge is False
