"""Tokens to text, a piece at a time: whole characters only, and never a part of a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from generation.chat.stop_strings import StopFilter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"
#: A UTF-8 character has at most four bytes, so at most four byte tokens; what is still broken after them stays broken.
_LONGEST_CHARACTER_TOKENS = 4


class Detokenizer:
    """Incremental text of one answer.

    A tokenizer decodes a token differently after others (spaces, characters split over tokens), so each new token is
    decoded together with a window of those before it and only what the window gained is emitted.

    Args:
        tokenizer: Decodes token ids.
        stop: Strings that end the answer and never appear in it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = StopFilter(stop)
        self._window: list[int] = []  # tokens that the next one is decoded with
        self._settled = 0  # tokens at the head of the window whose text is complete
        self._emitted = 0  # characters of the window's text that were taken

    def add(self, token: int) -> str:
        """Take one token and return the text that is now certain.

        Returns:
            New text, possibly empty. Once ``stopped`` is true the answer is over.
        """
        self._window.append(token)
        text = self._decode(self._window)
        whole = text.rstrip(_REPLACEMENT)
        broken = len(whole) != len(text) and len(self._window) - self._settled < _LONGEST_CHARACTER_TOKENS
        if not broken:
            whole = text
        piece = whole[self._emitted :]
        self._emitted = max(self._emitted, len(whole))
        if not broken:
            self._slide()
        return self._stop.add(piece)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._stop.stopped

    def flush(self) -> str:
        """The rest of the text when no token follows; half a character is dropped."""
        return self._stop.flush()

    def _slide(self) -> None:
        """Keep the newest tokens as context and forget those before."""
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        self._emitted = len(self._decode(self._window))

    def _decode(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast("str", text)  # one answer's tokens make one text
