# SPDX-License-Identifier: Apache-2.0
"""The records of a request: a log line, a count, a span, and never a prompt."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sd_runtime.api.image_backend import QueueFull
from sd_runtime.observability.tracing import Tracing

QUERY = {"prompt": "zebra", "seed": 1}


async def test_a_request_is_one_json_line_without_its_prompt(http, lines):
    await http.get("/imagine", params=QUERY, headers={"x-request-id": "mine"})
    (line,) = [each for each in lines() if each["message"] == "request"]
    assert line | {"request_id": "mine", "method": "GET", "route": "/imagine", "status": 200} == line
    assert line["seconds"] >= 0
    assert "zebra" not in str(lines())


async def test_probes_are_not_logged(http, lines):
    await http.get("/healthz")
    assert lines() == []


async def test_requests_are_counted_by_route_and_status(http, backend, metrics):
    await http.get("/imagine", params=QUERY)
    await http.get("/imagine", params={"prompt": ""})
    await http.get("/v1/jobs/mine/images/0")
    await http.get("/some/path")
    backend.error = QueueFull()
    await http.post("/v1/images/generations", json={"prompt": "a"})
    assert metrics.answers == [
        ("/imagine", 200),
        ("/imagine", 400),
        ("/v1/jobs/{job_id}/images/{index}", 404),
        ("other", 404),
        ("/v1/images/generations", 429),
    ]


async def test_a_client_that_leaves_stops_the_work_and_is_counted(http, backend, metrics):
    backend.gate.clear()
    asking = asyncio.create_task(http.get("/imagine", params=QUERY))
    await backend.begun.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert (backend.cancelled, metrics.left) == (1, 1)
    assert metrics.answers == [("/imagine", 499)]


async def test_the_model_is_paced_by_what_it_finishes(http, service, backend):
    assert service.requests.per_second() is None
    await http.get("/imagine", params=QUERY)
    assert service.requests.per_second() > 0


@pytest.fixture
def spans(service):
    """Finished spans, kept in memory."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    service.tracing = Tracing(provider.get_tracer("test"))
    return exporter.get_finished_spans


async def test_a_request_is_a_span_with_its_call_below_the_clients_own(http, spans):
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    await http.get("/imagine", params=QUERY, headers={"traceparent": parent, "x-request-id": "mine"})
    call, request = spans()
    assert (call.name, request.name) == ("draw", "request")
    assert call.parent.span_id == request.context.span_id
    assert f"{request.context.trace_id:032x}" == "1" * 32
    assert dict(request.attributes) | {"route": "/imagine", "status": 200} == dict(request.attributes)
    assert call.attributes["request_id"] == "mine"
    assert "zebra" not in str([span.to_json() for span in spans()])


async def test_a_stream_and_a_failure_end_their_spans(http, backend, spans):
    await http.post("/v1/images/generations", json={"prompt": "zebra", "stream": True})
    backend.error = RuntimeError("zebra")
    await http.post("/v1/images/generations", json={"prompt": "zebra"})
    assert [span.name for span in spans()] == ["draw", "request"] * 2
    assert "zebra" not in str([span.to_json() for span in spans()])
