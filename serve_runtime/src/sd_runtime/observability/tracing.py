# SPDX-License-Identifier: Apache-2.0
"""Spans around requests and their calls, if OTEL_EXPORTER_OTLP_ENDPOINT names who collects them.

OpenTelemetry (extra `otel`) is imported only then; its own OTEL_* variables set the rest. Attributes hold what the
logs hold: never a prompt.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sd_runtime.errors import ConfigError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

Attributes = dict[str, str | int | float]


class Tracing:
    """Makes spans with a tracer; without one, does nothing.

    Attributes:
        close: send what is not sent yet, and make no more; blocks for seconds where the collector does not answer.
    """

    def __init__(self, tracer: Any = None, close: Callable[[], None] = lambda: None) -> None:
        self._tracer = tracer
        self.close = close

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[Attributes]:
        """The span of an HTTP request, below the client's own; what the block adds to the dict is told as well."""
        if self._tracer is None:
            yield attributes
            return
        from opentelemetry import propagate  # noqa: PLC0415

        # Its errors stay out: their messages may hold a prompt.
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
        """The span of a call of the model; never the current one, since a generator may end in another context."""
        if self._tracer is None:
            yield
            return
        span = self._tracer.start_span(name, attributes=attributes, record_exception=False)
        try:
            yield
        finally:
            span.end()


def tracing(environment: Mapping[str, str] = os.environ) -> Tracing:
    """Tracing as the environment wants it.

    Raises:
        ConfigError: it names an endpoint, and OpenTelemetry is not installed.
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
            f"{wanted} is set, and OpenTelemetry is not installed: pip install 'sd-runtime[otel]'"
        ) from error

    provider = TracerProvider(resource=Resource.create({"service.name": "sd-runtime"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # Not the global provider: Ray has spans of its own, which are not ours to export.
    return Tracing(provider.get_tracer("sd_runtime"), provider.shutdown)
