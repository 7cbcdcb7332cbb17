# SPDX-License-Identifier: Apache-2.0
"""The state that all routes share: the settings, the image backend, the throughput and the result cache.

The one ingress replica keeps them and the jobs in its memory. They are lost when that replica is replaced.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from sd_runtime.api import validation
from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import ImageBackend, QueueFull
from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.engine.interface import ImageRequest, Picture, Update
from sd_runtime.observability.ingress_metrics import IngressMetrics, NoMetrics
from sd_runtime.observability.tracing import Tracing
from sd_runtime.store.cache_key import fingerprint
from sd_runtime.store.result_cache import ResultCache
from sd_runtime.store.throughput import ThroughputEstimator

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Drawn:
    """The images of a request. `cached` is None if the result cache was not used."""

    pictures: tuple[Picture, ...]
    cached: bool | None


class Service:
    """Generates images for the routes, with the result cache and the metrics."""

    def __init__(
        self,
        config: RuntimeConfig,
        backend: ImageBackend,
        *,
        metrics: IngressMetrics | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.live = LiveConfig()
        self.backend = backend
        self.metrics = metrics or NoMetrics()
        self.tracing = tracing or Tracing()
        self.clock = clock
        self.requests, self.pictures = ThroughputEstimator(), ThroughputEstimator()
        self._cache = ResultCache()

    def configure(self, live: LiveConfig) -> None:
        """Apply new settings. Running requests keep the old ones."""
        self.live = live
        self._cache.resize(live.result_cache.max_mebibytes * _MEBIBYTE)

    def policy(self) -> validation.RequestPolicy:
        """The current limits and defaults of a request."""
        return validation.policy(self.config, self.live)

    def fingerprint(self, request: ImageRequest) -> str:
        """The key of a seeded request in the result cache."""
        return fingerprint(request, self.config, self.live.provenance)

    async def draw(self, request: ImageRequest) -> Drawn:
        """Generate all images of a request. Cancelling the call stops the work.

        Raises:
            InvalidRequest: the engine rejects the request.
            GenerationFailed: an image could not be generated.
            Unavailable: the request cannot be served; the error has the HTTP status.
        """
        kept = self._look_up(request)
        if kept:
            return Drawn(kept, cached=True)
        with self._watched(request):
            pictures = tuple(await self.backend.draw(request, self.live.limits))
        return self._keep(request, pictures)

    async def stream(self, request: ImageRequest) -> AsyncGenerator[Update]:
        """Generate the images of a request and yield each update. Closing the generator stops the work."""
        kept = self._look_up(request)
        if kept:
            for picture in kept:
                yield picture
            return
        pictures: list[Picture] = []
        with self._watched(request):
            async with aclosing(self.backend.stream(request, self.live.limits)) as updates:
                async for update in updates:
                    if isinstance(update, Picture):
                        pictures.append(update)
                    yield update
        self._keep(request, tuple(sorted(pictures, key=lambda picture: picture.index)))

    def _look_up(self, request: ImageRequest) -> tuple[Picture, ...] | None:
        if not (request.seeded and self._cache.enabled):
            return None
        kept = self._cache.get(self.fingerprint(request))
        self.metrics.looked_up(hit=kept is not None)
        return kept

    def _keep(self, request: ImageRequest, pictures: tuple[Picture, ...]) -> Drawn:
        if not (request.seeded and self._cache.enabled):
            return Drawn(pictures, cached=None)
        self._cache.put(self.fingerprint(request), pictures)
        return Drawn(pictures, cached=False)

    @contextmanager
    def _watched(self, request: ImageRequest) -> Iterator[None]:
        """Measure a call of the model. If all queues are full, raise 429 with the seconds until a retry."""
        done = 0
        self._begin()
        try:
            with self.tracing.call("draw", {"request_id": request.id, "pictures": request.count}):
                yield
            done = 1
        except QueueFull as error:
            seconds = self.requests.retry_after(self.clock())
            raise Unavailable(429, f"all request queues are full; retry in {seconds} s", seconds) from error
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.cancelled()
            raise
        finally:
            self._end(done, request.count)

    def _begin(self) -> None:
        for pace in (self.requests, self.pictures):
            pace.begin(self.clock())

    def _end(self, done: int, count: int) -> None:
        self.requests.end(self.clock(), done)
        self.pictures.end(self.clock(), done * count)
