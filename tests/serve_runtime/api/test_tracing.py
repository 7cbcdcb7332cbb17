# SPDX-License-Identifier: Apache-2.0
"""Spans on the wire: OTLP over HTTP, as a collector receives them."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sd_runtime.errors import ConfigError
from sd_runtime.observability.tracing import tracing

QUERY = {"prompt": "zebra", "seed": 1}


class Collector(ThreadingHTTPServer):
    """Receives spans.

    Attributes:
        bodies: as they came, by path.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receive)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies = []

    def resources(self):
        """What sent spans, and the spans of each."""
        for path, body in self.bodies:
            assert path == "/v1/traces"
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                yield told(sent.resource), [span for scope in sent.scope_spans for span in scope.spans]


class Receive(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def told(holder):
    """Attributes of a resource or span."""
    values = {each.key: each.value for each in holder.attributes}
    return {key: value.string_value or value.int_value for key, value in values.items()}


@pytest.fixture
def collector(monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_spans_of_a_request_reach_the_collector(app, service, http, collector, monkeypatch):
    """At the latest when the ingress ends."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    service.tracing = tracing()
    async with app.router.lifespan_context(app):
        await http.get("/imagine", params=QUERY, headers={"x-request-id": "mine"})
    ((resource, (call, request)),) = collector.resources()
    assert resource["service.name"] == "sd-runtime"
    assert (call.name, request.name) == ("draw", "request")
    assert call.parent_span_id == request.span_id
    seen = {"request_id": "mine", "method": "GET", "route": "/imagine", "status": 200}
    assert told(request) == seen
    assert told(call) == {"request_id": "mine", "pictures": 1}
    assert "zebra" not in str(collector.bodies)


async def test_without_an_endpoint_nothing_is_traced(app, service, http, collector):
    service.tracing = tracing()
    async with app.router.lifespan_context(app):
        await http.get("/imagine", params=QUERY)
    assert service.tracing._tracer is None
    assert collector.bodies == []


def test_an_endpoint_without_opentelemetry_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*sd-runtime\[otel\]"):
        tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
