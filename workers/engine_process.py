"""The engine child: builds a model's engine, steps it and reports; the only place where a model library meets a job.

It is started by ``engine_handle`` as ``python -m workers.engine_process``, one for each worker, so that a crash in
native code takes down no bookkeeping and the model never shares the interpreter with it. Messages to it::

    ["submit", id, body, deadline_s]    take a request into the batch; body is that of ``contract.Request``, but with
                                        the pictures of an image body themselves, in base64, and with an ``origin``:
                                        job, tenant, user and the policy that it is moderated by
    ["cancel", id]                      forget it
    ["ping", number]                    answered by ["pong", number] between two steps
    ["stop"]                            release the device and exit

and from it::

    ["progress", what, share]           while loading; share in [0, 1] or null
    ["ready", info]                     the fields of ``generation.types.EngineInfo``
    ["unusable", code, message, permanent]   it could not be built
    ["delta", id, text], ["finished", id, reason, usage], ["failed", id, code, message, retryable]
    ["image_progress", id, step, total_steps, preview]   preview in base64, or null
    ["picture", id, index, data, media_type, width_px, height_px, seed, covered]   data in base64
    ["grounds", id, report]             what an answer stands on: the fields of ``contract.AnswerReport``
    ["judged", verdicts]                what moderation acted upon: category, action and how often, of each
    ["raised", ids, code, message, retryable]   a step failed as a whole: these were in it, one of them is the reason
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import socket
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from generation.errors import GenerationError, InvalidRequestError
from generation.moderation.policy import EffectivePolicy
from generation.types import (
    AnswerRequest,
    ChatRequest,
    Delta,
    Engine,
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Grounds,
    ImageRequest,
    ImageSampling,
    Judging,
    Message,
    Origin,
    Picture,
    Progress,
    Sampling,
    Usage,
)
from workers import log_format
from workers.engine_channel import Channel
from workers.log_format import LogFormat
from workers.process_tree import die_with_parent

log = logging.getLogger("palaver.engine")

#: A worker that takes nothing for this much unsent text is stuck; the engine waits instead of filling memory.
UNSENT_LIMIT_BYTES = 64 * 2**20

_USAGE = tuple(item.name for item in dataclasses.fields(Usage))

LoadProgress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to build in the engine process.

    Args:
        factory: ``module:function``, called as ``function(options, progress)``; returns a ``generation.types.Engine``.
        options: Plain JSON for the factory; secrets travel in it, so it is never logged or put on a command line.
        log_format: How the process logs.
    """

    factory: str
    options: dict[str, object] = field(default_factory=dict)
    log_format: LogFormat = "text"

    def __repr__(self) -> str:
        return f"EngineSpec({self.factory!r})"


def chat_request(request_id: str, body: dict[str, Any], deadline_s: float | None) -> ChatRequest:
    """The engine's form of a ``contract.ChatBody``."""
    options = dict(body.get("options", {}))
    options["stop"] = tuple(options.get("stop", ()))
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in body["messages"])
    return ChatRequest(request_id, messages, Sampling(**options), deadline_s, adapter=bool(body.get("adapter", True)))


def image_request(request_id: str, body: dict[str, Any], deadline_s: float | None) -> ImageRequest:
    """The engine's form of a ``contract.ImageBody`` that carries its pictures."""
    init, mask = (body.get(name) and b64decode(body[name], validate=True) for name in ("init_image", "mask_image"))
    return ImageRequest(
        request_id,
        prompt=body.get("prompt", ""),
        negative_prompt=body.get("negative_prompt", ""),
        sampling=ImageSampling(**body.get("options", {})),
        task=body.get("task", "generate"),
        init_image=init,
        mask_image=mask,
        deadline_s=deadline_s,
    )


def answer_request(request_id: str, body: dict[str, Any], deadline_s: float | None) -> AnswerRequest:
    """The engine's form of a ``contract.AnswerBody``."""
    fields = {name: value for name, value in body.items() if name not in ("kind", "origin", "conversation")}
    return AnswerRequest(request_id, conversation=tuple(body.get("conversation", ())), deadline_s=deadline_s, **fields)


def origin(body: dict[str, Any]) -> Origin | None:
    """The engine's form of what the worker tells of whose request it is."""
    told = body.get("origin")
    if told is None:
        return None
    policy = None if told["policy"] is None else EffectivePolicy.model_validate(told["policy"])
    return Origin(told["job_id"], told["tenant"], told["user"], policy)


#: Which requests an engine is ever given, by the kind their body names.
REQUESTS: dict[str, Callable[[str, dict[str, Any], float | None], EngineRequest]] = {
    "chat": chat_request,
    "image": image_request,
    "answer": answer_request,
}


class EngineLoop:
    """Commands in, one step, events out; until told to stop or the worker is gone."""

    def __init__(self, engine: Engine[Any], channel: Channel) -> None:
        self._engine = engine
        self._channel = channel
        self._in_flight: set[str] = set()

    def run(self) -> None:
        """Serve until ``stop`` or the end of the stream."""
        while not self._channel.closed:
            congested = self._channel.unsent_bytes > UNSENT_LIMIT_BYTES
            if congested or not self._engine.busy:
                self._channel.wait(None)
            for message in self._channel.receive():
                if message[0] == "stop":
                    return
                self._obey(message)
            self._channel.flush()
            if self._engine.busy and not congested:
                self._step()

    def _obey(self, message: list[Any]) -> None:
        match message:
            case ["submit", request_id, body, deadline_s]:
                self._submit(request_id, body, deadline_s)
            case ["cancel", request_id]:
                self._in_flight.discard(request_id)
                self._engine.cancel(request_id)
            case ["ping", number]:
                self._channel.send(["pong", number])

    def _submit(self, request_id: str, body: dict[str, Any], deadline_s: float | None) -> None:
        build = REQUESTS.get(body.get("kind", "chat"))
        if build is None:
            self._report(Failed(request_id, "invalid_request", "This worker does not run that kind of request."))
            return
        try:
            request = dataclasses.replace(build(request_id, body, deadline_s), origin=origin(body))
        except InvalidRequestError as error:
            self._report(Failed(request_id, error.code, str(error)))
            return
        except (KeyError, TypeError, ValueError):
            self._report(Failed(request_id, "invalid_request", "The request does not fit this engine's release."))
            return
        self._in_flight.add(request_id)
        self._engine.submit(request)

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the jobs, not lose them
            self._fail_over(error)
        else:
            self._report(*events)
        if isinstance(self._engine, Judging) and (verdicts := self._engine.take_verdicts()):
            self._channel.send(["judged", [[*verdict, count] for verdict, count in verdicts.items()]])

    def _fail_over(self, error: Exception) -> None:
        """A step that raised has produced nothing: empty the engine, keep the model; the worker finds the culprit."""
        log.error("A step of the engine raised %s; its %d requests end.", type(error).__name__, len(self._in_flight))
        message = ["raised", sorted(self._in_flight), "engine_error", "The model failed on this request.", True]
        if isinstance(error, GenerationError):
            message[2:] = [error.code, str(error), error.retryable]
        for request_id in self._in_flight:
            self._engine.cancel(request_id)
        self._in_flight.clear()
        self._channel.send(message)

    def _report(self, *events: EngineEvent) -> None:
        self._in_flight.difference_update(event.request_id for event in events if isinstance(event, Finished | Failed))
        if events:
            self._channel.send(*map(event_message, events))


def event_message(event: EngineEvent) -> list[Any]:
    """The message that carries an event."""
    match event:
        case Delta(request_id, text):
            return ["delta", request_id, text]
        case Progress(request_id, step, total_steps, preview):
            return ["image_progress", request_id, step, total_steps, preview and b64encode(preview).decode()]
        case Picture(request_id, index, data, media_type, width_px, height_px, seed, covered):
            encoded = b64encode(data).decode()
            return ["picture", request_id, index, encoded, media_type, width_px, height_px, seed, covered]
        case Grounds(request_id):
            report = dataclasses.asdict(event)
            del report["request_id"]
            return ["grounds", request_id, report]
        case Finished(request_id, reason, usage):
            return ["finished", request_id, reason, {name: getattr(usage, name) for name in _USAGE}]
        case Failed(request_id, code, message, retryable):
            return ["failed", request_id, code, message, retryable]


def build_engine(spec: EngineSpec, progress: LoadProgress) -> Engine[Any]:
    """Import the factory and build the engine; here, and nowhere else, model libraries are imported."""
    module_name, _, function_name = spec.factory.partition(":")
    factory: Callable[[dict[str, object], LoadProgress], Engine[Any]] = getattr(
        importlib.import_module(module_name), function_name
    )
    return factory(spec.options, progress)


def unusable(error: Exception) -> list[Any]:
    """The message for an engine that could not be built: what happened, and whether trying again can help."""
    if isinstance(error, GenerationError):
        return ["unusable", error.code, str(error), not error.retryable]
    if isinstance(error, ModuleNotFoundError):
        text = f"The module {error.name!r} is missing; install the worker's parts: pip install 'palaver[worker]'."
        return ["unusable", "engine_start", text, True]
    lines = str(error).strip().splitlines()
    reason = f": {lines[0][:300]}" if lines else ""
    return ["unusable", "engine_start", f"The engine could not start ({type(error).__name__}{reason}).", False]


def serve(channel: Channel, spec: EngineSpec) -> None:
    """Build the engine, say that it is ready, and run it."""
    try:
        engine = build_engine(spec, lambda what, share: channel.send(["progress", what, share]))
    except Exception as error:  # any failure to start is told in one line, not as a traceback
        log.debug("The engine could not be built.", exc_info=True)
        channel.send(unusable(error))
        drain(channel)
        return
    try:
        channel.send(["ready", dataclasses.asdict(engine.info)])
        EngineLoop(engine, channel).run()
        drain(channel)
    finally:
        engine.close()


def drain(channel: Channel, patience_s: float = 5.0) -> None:
    """Write what is left before the process ends, unless the worker has stopped reading."""
    while channel.unsent_bytes and not channel.closed:
        before = channel.unsent_bytes
        channel.wait(patience_s)
        channel.flush()
        if channel.unsent_bytes == before and not channel.receive():
            return


def main() -> None:
    """Entry point of the process: arguments are the channel's file descriptor and the parent's process id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    descriptor, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent_pid)
    os.set_inheritable(descriptor, False)
    with contextlib.closing(Channel(socket.socket(fileno=descriptor))) as channel:
        first: list[list[Any]] = []
        while not first and not channel.closed:
            channel.wait(None)
            first = channel.receive()
        if not first:
            return
        _, factory, options, log_level, format_name = first[0]
        log_format.configure(log_level, format_name)
        serve(channel, EngineSpec(factory, options))


if __name__ == "__main__":
    main()
