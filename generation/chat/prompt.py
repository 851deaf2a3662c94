"""From a conversation to the model's tokens: chat template, untrusted text defused, oldest turns dropped to fit.

A chat template marks who speaks with control tokens such as ``<|im_end|>``. Tokenizers recognise those anywhere in
a text, so a user who types one could end their own turn and speak as the system. Here a control token counts only
where the template wrote it: what people typed is split inside such a name before it meets the tokenizer.

A tokenizer splits text at control tokens before anything else, so the stretches between them can be tokenised
separately, each once, whatever number of turns is tried.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import jinja2

from generation.errors import InvalidRequestError, ModelError, PromptTooLongError
from generation.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: For models whose tokenizer brings no template: ChatML, which most open models were tuned on.
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: For base models, which know no control tokens of a conversation.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# A typed control token becomes its number between two private-use characters while the template runs.
_MARK = re.compile("\ue000(\\d+)\ue001")
_PROBE = "palaver-probe"


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits.

    Args:
        token_ids: The whole prompt, up to where the answer begins.
        dropped_messages: Oldest turns that were left out.
    """

    token_ids: list[int]
    dropped_messages: int


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template for a tokenizer without one: ChatML if it knows those tokens, else ``User: ... Assistant:``."""
    return CHATML_TEMPLATE if "<|im_start|>" in tokenizer.get_vocab() else PLAIN_TEMPLATE


def fit(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    limit_tokens: int,
    arguments: Mapping[str, object] = MappingProxyType({}),
) -> FittedPrompt:
    """Render a conversation within a number of tokens: oldest turns go first, the system text and last turn stay.

    Args:
        messages: Oldest first; at most one system message, which comes first; the last is the user's.
        tokenizer: The model's, with a chat template.
        limit_tokens: Most tokens of the prompt; the caller keeps room for the answer.
        arguments: What the template takes beside the conversation.

    Raises:
        InvalidRequestError: The messages are no conversation that ends with the user.
        PromptTooLongError: The system text and the last turn alone exceed the limit.
    """
    system, turns = checked(messages)
    attempt = _Attempt(_template_of(tokenizer), system, turns, limit_tokens, arguments)
    starts = [i for i, turn in enumerate(turns) if turn.role == "user"]  # what is kept begins with a user's turn
    if attempt.fits(0):
        start = 0
    elif not attempt.fits(starts[-1]):
        raise PromptTooLongError(len(attempt.token_ids(starts[-1])), limit_tokens)
    else:
        start = _oldest_that_fits(attempt, starts)
    return FittedPrompt(attempt.token_ids(start), start)


def answer_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of an answer as they follow their prompt, without the one that ends it; no typed control token counts."""
    return _template_of(tokenizer).answer(text)


def end_of_turn(tokenizer: PreTrainedTokenizerBase, eos_token_ids: Collection[int]) -> int:
    """The token with which the model's own template ends an answer.

    Args:
        tokenizer: The model's, with a chat template.
        eos_token_ids: Those at which generation stops.
    """
    return _template_of(tokenizer).end_of_turn(eos_token_ids)


def _template_of(tokenizer: PreTrainedTokenizerBase) -> _Template:
    template = _TEMPLATES.get(tokenizer)
    if template is None:
        template = _TEMPLATES[tokenizer] = _Template(tokenizer)
    return template


def _oldest_that_fits(attempt: _Attempt, starts: Sequence[int]) -> int:
    """Gallop back from the last turn, then bisect: about 2 log2(n) renderings, and no text far beyond the limit."""
    fitting, step = len(starts) - 1, 1
    while fitting - step >= 0 and attempt.fits(starts[fitting - step]):
        fitting, step = fitting - step, step * 2
    failing = max(-1, fitting - step)
    while fitting - failing > 1:
        middle = (fitting + failing) // 2
        if attempt.fits(starts[middle]):
            fitting = middle
        else:
            failing = middle
    return starts[fitting]


def checked(messages: Sequence[Message]) -> tuple[Message | None, list[Message]]:
    """Take a conversation apart and leave out turns that say nothing.

    Args:
        messages: Oldest first; at most one system message, which comes first; the last is the user's.

    Returns:
        The system message, if any, and the other turns.

    Raises:
        InvalidRequestError: The messages are no conversation that ends with the user.
    """
    if not messages or messages[-1].role != "user":
        raise InvalidRequestError("A conversation has to end with a message of the user.")
    if any(message.role == "system" for message in messages[1:]):
        raise InvalidRequestError("A conversation has at most one system message, and it comes first.")
    if not messages[-1].content.strip():
        raise InvalidRequestError("The message is empty: write something to answer.")
    spoken = [message for message in messages if message.content.strip()]
    return (spoken[0], spoken[1:]) if spoken[0].role == "system" else (None, spoken)


class _Attempt:
    """One conversation, tried with fewer and fewer turns."""

    def __init__(
        self,
        template: _Template,
        system: Message | None,
        turns: list[Message],
        limit_tokens: int,
        arguments: Mapping[str, object],
    ) -> None:
        self._template = template
        self._arguments = arguments
        self._system = system and template.defused(system)
        self._turns = [template.defused(turn) for turn in turns]
        self._limit_tokens = limit_tokens
        self._known: dict[tuple[str, str], list[int]] = {}

    def fits(self, start: int) -> bool:
        """Whether the turns from this one on fit; stops counting as soon as they do not."""
        count = 0
        for stretch in self._stretches(start):
            count += len(self._tokens(stretch))
            if count > self._limit_tokens:
                return False
        return True

    def token_ids(self, start: int) -> list[int]:
        """The prompt with the turns from this one on."""
        return [token for stretch in self._stretches(start) for token in self._tokens(stretch)]

    def _stretches(self, start: int) -> list[tuple[str, str]]:
        return self._template.stretches(self._system, self._turns[start:], self._arguments)

    def _tokens(self, stretch: tuple[str, str]) -> list[int]:
        if stretch not in self._known:
            self._known[stretch] = self._template.tokenize(*stretch)
        return self._known[stretch]


class _Template:
    """What one tokenizer's template needs and how its output becomes tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = weakref.proxy(tokenizer)
        # Some tokenizers add runs of spaces or plain words to their vocabulary; those do not control anything.
        added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
        self._names = sorted(name for name in added if name.strip() and not name[0].isalnum())
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._control = re.compile(_any_of(self._names) or r"(?!)")
        self._takes_parts = False
        if not self._probe([Message("user", _PROBE)]):  # some templates of models that see pictures want lists of parts
            self._takes_parts = True
            self._takes_parts = self._probe([Message("user", _PROBE)])
        self._takes_system = self._probe([Message("system", _PROBE), Message("user", "a")])
        self._takes_repeats = self._probe([Message("user", "a"), Message("user", _PROBE)])
        self._takes_assistant_first = self._probe([Message("assistant", "a"), Message("user", _PROBE)])

    def defused(self, message: Message) -> Message:
        """The message with every typed control token replaced by a mark."""
        content = self._control.sub(lambda found: f"\ue000{self._numbers[found[0]]}\ue001", message.content)
        return Message(message.role, content)

    def stretches(
        self, system: Message | None, turns: Sequence[Message], arguments: Mapping[str, object]
    ) -> list[tuple[str, str]]:
        """Render, and cut at the template's control tokens.

        Returns:
            ``(control token, text after it)`` pairs; the first control token may be empty.
        """
        text = self._render(self._suited(system, list(turns)), arguments)
        cuts = list(self._control.finditer(text))
        ends = [cut.start() for cut in cuts[1:]] + [len(text)]
        first = [("", text[: cuts[0].start()])] if cuts and cuts[0].start() else []
        if not cuts:
            return [("", text)]
        return first + [(cut[0], text[cut.end() : end]) for cut, end in zip(cuts, ends, strict=True)]

    def tokenize(self, control: str, text: str) -> list[int]:
        """Tokens of a control token and the text after it, in which nothing else is a control token."""
        head, *rest = self._parts(text)
        return self._encode(control + head) + [token for part in rest for token in self._continued(part)]

    def answer(self, text: str) -> list[int]:
        """Tokens of an answer behind its prompt."""
        defused = self.defused(Message("assistant", text)).content
        return [token for part in self._parts(defused) for token in self._continued(part)]

    def end_of_turn(self, eos_token_ids: Collection[int]) -> int:
        """The first of these tokens that the template writes behind an answer; any of them where it writes none."""
        plain = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        try:
            text = str(self._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=False))
        except jinja2.TemplateError:
            text = ""
        for token in self._encode(text.rpartition(_PROBE)[2]):
            if token in eos_token_ids:
                return token
        own = self._tokenizer.eos_token_id
        return own if isinstance(own, int) and own in eos_token_ids else min(eos_token_ids)

    def _parts(self, text: str) -> list[str]:
        """The text as it was typed, cut behind the first character of each control token in it."""
        text = _MARK.sub(self._name, text)
        parts, start = [], 0
        while found := self._control.search(text, start):
            cut = found.start() + 1
            parts.append(text[start:cut])
            start = cut
        return [*parts, text[start:]]

    def _name(self, mark: re.Match[str]) -> str:
        number = int(mark[1])
        return self._names[number] if number < len(self._names) else mark[0]

    def _continued(self, text: str) -> list[int]:
        """Tokens of a text that does not begin its stretch: some tokenizers put a space before what comes first."""
        anchor = self._tokenizer.eos_token
        if anchor not in self._numbers:
            return self._encode(text)
        return self._encode(f"{anchor}{text}")[1:]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _suited(self, system: Message | None, turns: list[Message]) -> list[Message]:
        """The conversation in the form that this template accepts."""
        if turns and turns[0].role == "assistant" and not self._takes_assistant_first:
            turns = turns[1:]
        if not self._takes_repeats:
            turns = _merged(turns)
        if system is None:
            return turns
        if self._takes_system:
            return [system, *turns]
        opening = Message("user", f"{system.content}\n\n{turns[0].content}")
        return [opening, *turns[1:]]

    def _render(self, messages: Sequence[Message], arguments: Mapping[str, object]) -> str:
        try:
            return self._rendered(messages, arguments)
        except jinja2.TemplateError as error:
            raise ModelError(f"The model's chat template failed: {type(error).__name__}.") from None

    def _rendered(self, messages: Sequence[Message], arguments: Mapping[str, object] = MappingProxyType({})) -> str:
        plain = [{"role": message.role, "content": self._content(message)} for message in messages]
        text = self._tokenizer.apply_chat_template(
            plain,
            tokenize=False,
            add_generation_prompt=True,
            **{"enable_thinking": False, **arguments},  # a model that can reason at length first answers at once
        )
        return str(text)

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": message.content}] if self._takes_parts else message.content

    def _probe(self, messages: Sequence[Message]) -> bool:
        """Whether the template takes these messages and shows the text it is asked about."""
        try:
            return _PROBE in self._rendered(messages)
        except jinja2.TemplateError:
            return False


def _merged(turns: Sequence[Message]) -> list[Message]:
    """Neighbouring turns of one speaker as one, for templates that insist on alternation."""
    merged: list[Message] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = Message(turn.role, f"{merged[-1].content}\n\n{turn.content}")
        else:
            merged.append(turn)
    return merged


def _any_of(names: Sequence[str]) -> str:
    """A pattern for the longest of these names, branching where they differ: some models have thousands."""
    branches: dict[str, list[str]] = {}
    for name in names:
        if name:
            branches.setdefault(name[0], []).append(name[1:])
    if not branches:
        return ""
    pattern = "|".join(re.escape(first) + _any_of(rest) for first, rest in branches.items())
    return f"(?:{pattern})" + ("?" if "" in names else "")


_TEMPLATES: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, _Template] = weakref.WeakKeyDictionary()
