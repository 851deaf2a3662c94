"""Traces along a job's road, for OpenTelemetry: submitted, queued, in the engine, delivered.

Off unless an operator wants them. Where a job's first span lies travels in ``ReplyTo.trace``, so that each event brings
it back to whichever process delivers. Nothing of OpenTelemetry is imported here until ``exporting`` is entered with an
endpoint, and no attribute holds what anybody wrote. Every part is recorded when it has ended, from times that are there
anyway: while tracing is off it costs one comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from workers.contract import ReplyTo, Request, tenant_of
from workers.errors import SettingsError
from workers.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

_FLUSH_MS = 2_000


class _Tracing(NamedTuple):
    """What spans are made with; there only while tracing is on."""

    tracer: Tracer


_on: _Tracing | None = None


@contextmanager
def exporting(settings: TracingSettings, process: str, exporter: SpanExporter | None = None) -> Iterator[None]:
    """Record and export spans of this process while the block runs.

    Args:
        settings: Where to; without an endpoint nothing is done.
        process: What this process is, for example ``chat-worker``.
        exporter: In place of the one for the endpoint.

    Raises:
        SettingsError: An endpoint is set, and OpenTelemetry is not installed.
    """
    global _on  # noqa: PLW0603 - one for the process, as its log is
    if settings.endpoint is None and exporter is None:
        yield
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.share)),
            resource=Resource({"service.name": "palaver", "palaver.process": process}),
            shutdown_on_exit=False,
        )
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=settings.endpoint)
    except ModuleNotFoundError:
        raise SettingsError(
            "tracing.endpoint is set, and OpenTelemetry is not installed: pip install 'palaver[otel]'."
        ) from None
    provider.add_span_processor(BatchSpanProcessor(exporter))
    before, _on = _on, _Tracing(provider.get_tracer("palaver"))
    try:
        yield
    finally:
        _on = before
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()


def submitted(request: Request, begun_s: float, ended_s: float) -> Request:
    """The request with the beginning of its trace: the time from the prompt to its place in the queue.

    Args:
        request: About to be enqueued.
        begun_s: Unix time at which its submission began.
        ended_s: Unix time now.

    Returns:
        The same request where tracing is off, or where its trace has begun before.
    """
    if _on is None or request.reply.trace is not None:
        return request
    attributes = {"palaver.kind": request.kind, "palaver.platform": request.platform}
    trace = _record(_on.tracer, "submit", request.job_id, None, begun_s, ended_s, attributes)
    return request.model_copy(update={"reply": request.reply.model_copy(update={"trace": trace})})


def passed(
    part: str,
    job_id: str,
    reply: ReplyTo,
    begun_s: float,
    ended_s: float,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> None:
    """A part of a job's road has been passed.

    Args:
        part: ``queued``, ``engine`` or ``delivery``.
        job_id: Whose.
        reply: Of its request or of an event; one without a trace is of a process that traces nothing.
        begun_s: Unix time.
        ended_s: Unix time.
        attributes: Of the span; never what anybody wrote.
    """
    if _on is not None and reply.trace is not None:
        _record(_on.tracer, part, job_id, reply.trace, begun_s, ended_s, attributes or {})


def _record(
    tracer: Tracer,
    part: str,
    job_id: str,
    parent: str | None,
    begun_s: float,
    ended_s: float,
    attributes: Mapping[str, AttributeValue],
) -> str:
    """Record one span; returns where it lies, as W3C's ``traceparent``."""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({"traceparent": parent}) if parent else None
    span = tracer.start_span(f"palaver {part}", context, start_time=round(begun_s * 1e9))
    span.set_attributes({"palaver.job_id": job_id, "palaver.tenant": tenant_of(job_id), **attributes})
    span.end(round(max(begun_s, ended_s) * 1e9))
    carrier: dict[str, str] = {}
    propagator.inject(carrier, set_span_in_context(span))
    return carrier["traceparent"]
