"""One chat completion of an OpenAI-compatible server, as a stream of text.

Source: OpenAI API reference, "Create chat completion" and "Streaming"; vLLM, llama.cpp and Ollama follow it, each with
small liberties: usage may come with the last choice, alone, or not at all; ``[DONE]`` may be missing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from generation.chat import openai_errors
from generation.errors import BackendError, BackendUnavailableError
from generation.types import FinishReason, Message, Sampling

_STOP_STRINGS_SENT = 4  # what OpenAI's own servers accept; the rest is watched for here
_ERROR_BYTES = 64 * 1024


@dataclass(slots=True)
class Completion:
    """What is known of a completion; filled while its text is read."""

    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how to speak to it.

    Args:
        client: With base URL, key and timeouts set.
        name: Host and port, for messages.
        model: The server's name of the model.
        silence_s: Longest time without a byte, for messages.
    """

    client: httpx.AsyncClient
    name: str
    model: str
    silence_s: float

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, completion: Completion
    ) -> AsyncGenerator[str]:
        """Ask for a completion and yield its text as it comes. Closing the iterator cancels it on the server.

        Args:
            messages: The conversation, oldest first.
            sampling: How tokens are chosen.
            completion: Filled with the end's reason and the usage.

        Raises:
            GenerationError: Which of them, see ``openai_errors``.
        """
        body = _body(self.model, messages, sampling)
        try:
            async with self.client.stream("POST", "chat/completions", json=body) as response:
                await self._check(response)
                async for data in _data(response):
                    if text := self._read(data, completion):
                        yield text
        except httpx.HTTPError as error:
            if completion.finish_reason is None:
                raise openai_errors.broken(error, self.name, self.silence_s) from None
        if completion.finish_reason is None:
            raise BackendUnavailableError(f"The model server at {self.name} ended an answer in its middle.")

    async def _check(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _ERROR_BYTES:
                    break
            raise openai_errors.refused(response.status_code, response.headers, bytes(body), self.model, self.name)
        if "text/event-stream" not in response.headers.get("content-type", ""):
            raise BackendError(
                f"The server at {self.name} streams no chat completions. Check api_base_url (often it ends in /v1)."
            )

    def _read(self, data: bytes, completion: Completion) -> str:
        """Take one chunk: note what it says of the end, return its text."""
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                raise BackendUnavailableError(f"The model server at {self.name} failed in the middle of an answer.")
            _note_usage(chunk.get("usage") or {}, completion)
            choices = chunk.get("choices") or []
            if not choices:
                return ""
            reason = choices[0].get("finish_reason")
            if reason:
                completion.finish_reason = "length" if reason == "length" else "stop"
            text = str((choices[0].get("delta") or {}).get("content") or "")
        except (ValueError, AttributeError, LookupError, TypeError):
            raise BackendUnavailableError(f"The model server at {self.name} sent what cannot be read.") from None
        completion.pieces += bool(text)
        return text


async def _data(response: httpx.Response) -> AsyncIterator[bytes]:
    """Payloads of the server's events, up to ``[DONE]`` or the end.

    Lines end with a line feed alone: the JSON in them may hold other characters that Python also splits lines at.
    """
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            if data and line.startswith(b"data:"):
                yield data


def _body(model: str, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The request; options that OpenAI does not define are sent only where they change anything."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    optional: dict[str, tuple[Any, Any]] = {
        "seed": (sampling.seed, None),
        "stop": (list(sampling.stop[:_STOP_STRINGS_SENT]), []),
        "top_k": (sampling.top_k, 0),
        "min_p": (sampling.min_p, 0.0),
        "repetition_penalty": (sampling.repetition_penalty, 1.0),
    }
    return body | {key: value for key, (value, neutral) in optional.items() if value != neutral}


def _note_usage(usage: dict[str, Any], completion: Completion) -> None:
    if usage:
        completion.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion.completion_tokens = int(usage.get("completion_tokens") or 0)
        completion.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
