"""What goes wrong between here and an OpenAI-compatible server, in this package's errors.

A server's own messages may quote the prompt, so none of their text is passed on.
"""

from __future__ import annotations

import json
import re

import httpx

from generation.errors import (
    BackendError,
    BackendUnavailableError,
    GenerationError,
    InvalidRequestError,
    ModelNotFoundError,
)

_CONTEXT = re.compile(r"context[ _](length|size|window)|maximum context|too many tokens", re.IGNORECASE)


class ContextExceededError(InvalidRequestError):
    """The server counted more tokens than its model takes; fewer turns may fit."""

    code = "prompt_too_long"

    def __init__(self) -> None:
        super().__init__("The message is longer than the model server accepts. Shorten it or split it into parts.")


def refused(status: int, headers: httpx.Headers, body: bytes, model: str, server: str) -> GenerationError:
    """The error for an answer that is not 200.

    Args:
        status: HTTP status.
        headers: Of the answer.
        body: Of the answer; only error codes are read from it.
        model: The name that was asked for.
        server: Host and port, for the operator.
    """
    if status in (401, 403):
        return BackendError(f"The model server at {server} refuses the API key ({status}). Check api_key.")
    if status == 404:
        return ModelNotFoundError(
            f"The model server at {server} has no model {model!r} or no such path (404). Check model and api_base_url."
        )
    if status == 429:
        wait = headers.get("retry-after", "")
        when = f"in {wait} s" if wait.isdigit() else "later"
        return BackendUnavailableError(f"The model server at {server} is overloaded (429). Try again {when}.")
    if status >= 500:
        return BackendUnavailableError(f"The model server at {server} failed ({status}). Try again later.")
    if status in (400, 413, 422):
        if _CONTEXT.search(body.decode("utf-8", "replace")):
            return ContextExceededError()
        return InvalidRequestError(
            f"The model server at {server} does not accept this request ({_code(body) or status}). "
            "Check that it knows the model and the sampling options in use."
        )
    return BackendError(f"The model server at {server} answered with status {status}. Check api_base_url.")


def broken(error: httpx.HTTPError, server: str, silence_s: float) -> GenerationError:
    """The error for a connection that could not be made or did not hold.

    Args:
        error: What httpx raised.
        server: Host and port, for the operator.
        silence_s: Longest time without a byte that is waited for.
    """
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return BackendUnavailableError(
            f"The model server at {server} cannot be reached. Start it, or check api_base_url."
        )
    if isinstance(error, httpx.TimeoutException):
        return BackendUnavailableError(f"The model server at {server} sent nothing for {silence_s:g} s.")
    return BackendUnavailableError(f"The connection to the model server at {server} broke off.")


def _code(body: bytes) -> str:
    """The machine-readable code of an error, if there is one; free text is left out."""
    try:
        error = json.loads(body)["error"]
        code = str(error.get("code") or error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return code if re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", code) else ""
