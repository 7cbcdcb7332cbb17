# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry spans for requests and model calls, if OTEL_EXPORTER_OTLP_ENDPOINT names a collector.

OpenTelemetry (extra `otel`) is imported only in that case; its OTEL_* variables control all other settings. Attributes
contain the same data as the logs, and never a prompt.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sd_runtime.errors import ConfigError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Attributes = dict[str, str | int | float]


class Tracing:
    """A source of spans. Without a tracer it does nothing.

    Attributes:
        close: sends the remaining spans and ends tracing. It blocks for seconds if the collector does not answer.
    """

    def __init__(self, tracer: Any = None, close: Callable[[], None] = lambda: None) -> None:
        self._tracer = tracer
        self.close = close

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[Attributes]:
        """Open the span of an HTTP request, as a child of the client's span.

        The span gets the yielded attributes at its end, so the block may add to them.
        """
        if self._tracer is None:
            yield attributes
            return
        from opentelemetry import propagate  # noqa: PLC0415

        # The span does not record exceptions: their messages may contain a prompt.
        with self._tracer.start_as_current_span(
            name,
            context=propagate.extract(headers),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield attributes
            finally:
                span.set_attributes(attributes)

    @contextmanager
    def call(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Open the span of a call of the model.

        The span is never the current span, since a generator may end in another context.
        """
        if self._tracer is None:
            yield
            return
        span = self._tracer.start_span(name, attributes=attributes, record_exception=False)
        try:
            yield
        finally:
            span.end()


def tracing(environment: Mapping[str, str] = os.environ) -> Tracing:
    """Tracing as the environment variables configure it.

    Raises:
        ConfigError: a variable names an endpoint, but OpenTelemetry is not installed.
    """
    wanted = next((name for name in _ENDPOINTS if environment.get(name)), None)
    if wanted is None:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{wanted} is set, but OpenTelemetry is not installed: run pip install 'sd-runtime[otel]'"
        ) from error

    provider = TracerProvider(resource=Resource.create({"service.name": "sd-runtime"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # This provider is not the global one, because this runtime does not export the spans that Ray makes.
    return Tracing(provider.get_tracer("sd_runtime"), provider.shutdown)
