"""Traces along a job's road: real processes, and a collector that takes OTLP over HTTP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.test_dispatch import Front, kept, prompt
from tests.jobs import wait_until
from tests.valkey import ValkeyProcess
from tests.wall import Platform
from tests.worker_processes import config, worker
from workers import tracing
from workers.contract import ReplyTo
from workers.settings import TracingSettings

SECRET = "a-word-that-somebody-wrote"


class Collector:
    """What has arrived."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.received.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @property
    def spans(self) -> dict[str, Span]:
        exports = [ExportTraceServiceRequest.FromString(each) for each in self.received]
        scopes = [scope for export in exports for resource in export.resource_spans for scope in resource.scope_spans]
        return {span.name: span for scope in scopes for span in scope.spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


async def test_one_trace_holds_the_parts_of_a_jobs_road(server: ValkeyProcess, collector: Collector) -> None:
    settings = TracingSettings(endpoint=collector.url)
    configured = config(server.url).model_copy(update={"tracing": settings})
    with tracing.exporting(settings, "front-end"), worker(configured) as process:
        front = Front(server.url, Platform())
        await front.dispatch.ask(prompt(tokens=3, note=SECRET))
        await kept(front, "t1__k1")
        await front.close()
        process.signal(15)
        process.wait()
    wait_until(lambda: len(collector.spans) == 4, what="for the spans")
    spans = collector.spans
    assert set(spans) == {f"palaver {part}" for part in ("submit", "queued", "engine", "delivery")}
    root = spans["palaver submit"]
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    assert {span.parent_span_id for name, span in spans.items() if name != root.name} == {root.span_id}
    told = {item.key: item.value for item in spans["palaver engine"].attributes}
    assert told["palaver.completion_tokens"].int_value == 3
    assert told["palaver.end"].string_value == "finished"
    assert told["palaver.job_id"].string_value == "t1__k1"
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans.values())
    assert SECRET.encode() not in b"".join(collector.received)


def test_nothing_is_imported_or_sent_while_it_is_off() -> None:
    code = (
        "import sys, bots.exported, workers.worker_process, bots.delivery.dispatch\n"
        "from workers import tracing\n"
        "from workers.settings import TracingSettings\n"
        "with tracing.exporting(TracingSettings(), 'x'): pass\n"
        "assert not {'opentelemetry.sdk.trace', 'opentelemetry.exporter'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert '"trace"' not in ReplyTo(front_end="f").model_dump_json(exclude_defaults=True)
