# SPDX-License-Identifier: Apache-2.0
"""The runtime's errors for errors of Ray, with a test handle. No test here starts Ray."""

import asyncio
import contextlib
import itertools

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from sd_runtime.api.errors import Unavailable
from sd_runtime.api.image_backend import QueueFull, Readiness
from sd_runtime.config import Limits, LiveConfig
from sd_runtime.engine.interface import ImageRequest, Picture, Progress
from sd_runtime.errors import GenerationFailed, InvalidRequest
from sd_runtime.serving.serve_backend import ServeBackend

REQUEST, LIMITS = ImageRequest(prompt="a"), Limits(timeout_seconds=1, cold_start_timeout_seconds=1)
PICTURES = [Picture(0, b"x", 1)]


class Call:
    """A call of a handle, unary and streaming at once; like Ray's it raises its failure again from cancel()."""

    def __init__(self, failure, slow):
        self.failure, self.slow, self.cancelled = failure, slow, False
        self._updates = iter([Progress(0, 1, 2), *PICTURES])

    def __await__(self):
        return self._result().__await__()

    async def _result(self):
        if self.slow:
            await asyncio.sleep(self.slow)
            self.slow = 0
        if self.failure:
            raise self.failure
        return PICTURES

    async def __anext__(self):
        await self._result()
        with contextlib.suppress(StopIteration):
            return next(self._updates)
        raise StopAsyncIteration

    def cancel(self):
        self.cancelled = True
        if isinstance(self.failure, BackPressureError):
            raise self.failure


class Handle:
    """Stands for the handle and for its methods."""

    def __init__(self):
        self.failure, self.slow, self.calls = None, 0, []
        self.generate = self.stream = self

    def options(self, *, stream):
        assert stream
        return self

    def remote(self, request):
        self.calls.append(Call(self.failure, self.slow))
        return self.calls[-1]


class Probe:
    phase = "ready"

    async def read(self, within_seconds=None):
        return Readiness(ready=True, phase=self.phase)


@pytest.fixture
def handle():
    return Handle()


@pytest.fixture
def backend(handle, monkeypatch):
    monkeypatch.setattr("sd_runtime.serving.serve_backend.ReadinessProbe", lambda *_, **__: Probe())
    return ServeBackend(handle)


async def unary(backend, limits=LIMITS):
    return await backend.draw(REQUEST, limits)


async def streaming(backend, limits=LIMITS):
    return [update async for update in backend.stream(REQUEST, limits) if isinstance(update, Picture)]


both = pytest.mark.parametrize("draw", [unary, streaming], ids=["unary", "streaming"])


def task_error(cause):
    return RayTaskError("generate", "traceback with a prompt", cause).as_instanceof_cause()


@both
async def test_pictures_come_and_nothing_is_cancelled(backend, handle, draw):
    assert await draw(backend) == PICTURES
    assert not handle.calls[0].cancelled


@both
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), QueueFull),
        (task_error(InvalidRequest("lora: got 'a'", "lora")), InvalidRequest),
        (task_error(GenerationFailed("the image contains NaN values")), GenerationFailed),
    ],
    ids=["queue full", "invalid", "failed"],
)
async def test_an_error_of_the_engine_is_itself_again(backend, handle, draw, failure, expected):
    handle.failure = failure
    with pytest.raises(expected) as caught:
        await draw(backend)
    assert type(caught.value) is expected


@both
async def test_a_bug_in_the_replica_is_named_without_its_message(backend, handle, draw):
    handle.failure = task_error(ValueError("a secret prompt"))
    with pytest.raises(Exception, match="ValueError") as caught:
        await draw(backend)
    assert "secret" not in str(caught.value)


@both
@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [(RayActorError(), 503, "1"), (DeploymentUnavailableError("model"), 503, "30")],
    ids=["replica lost", "deployment failed"],
)
async def test_a_lost_replica_says_when_to_try_again(backend, handle, draw, failure, status, retry_after):
    handle.failure = failure
    with pytest.raises(Unavailable) as caught:
        await draw(backend)
    assert (caught.value.status_code, caught.value.headers["Retry-After"]) == (status, retry_after)


@both
@pytest.mark.parametrize(("phase", "status"), [("ready", 504), ("loading", 503)])
async def test_past_the_time_limit_the_work_is_stopped(backend, handle, draw, monkeypatch, phase, status):
    monkeypatch.setattr(Probe, "phase", phase)
    handle.slow = 60
    with pytest.raises(Unavailable) as caught:
        await draw(backend)
    assert caught.value.status_code == status
    assert handle.calls[0].cancelled


@both
async def test_a_replica_that_is_replaced_gives_a_request_the_time_of_a_cold_start(
    backend, handle, draw, monkeypatch
):
    """There is one when the request comes and none at the end of its time."""
    phases = iter(["ready", "starting"])
    monkeypatch.setattr(Probe, "phase", property(lambda _: next(phases)))
    handle.slow = 1.5
    assert await draw(backend, Limits(timeout_seconds=1, cold_start_timeout_seconds=600)) == PICTURES


@both
async def test_so_does_one_that_is_lost_and_back_before_the_end_of_its_time(
    backend, handle, draw, monkeypatch
):
    phases = itertools.chain(["ready", "ready", "starting"], itertools.repeat("ready"))
    monkeypatch.setattr(Probe, "phase", property(lambda _: next(phases)))
    monkeypatch.setattr("sd_runtime.serving.serve_backend._LOOK_SECONDS", 0.02)
    handle.slow = 1.5
    assert await draw(backend, Limits(timeout_seconds=1, cold_start_timeout_seconds=600)) == PICTURES


@both
async def test_who_leaves_stops_the_work(backend, handle, draw):
    handle.slow = 60
    asking = asyncio.create_task(draw(backend))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert handle.calls[0].cancelled


@both
async def test_the_replica_draws_while_serve_is_asked_for_its_state(backend, handle, draw, monkeypatch):
    begun = []

    async def read(self, within_seconds=None):
        begun.append(len(handle.calls))
        return Readiness(ready=True, phase="ready")

    monkeypatch.setattr(Probe, "read", read)
    await draw(backend)
    assert begun == [1]


async def test_closing_a_stream_stops_the_work(backend, handle):
    updates = backend.stream(REQUEST, LIMITS)
    assert isinstance(await anext(updates), Progress)
    await updates.aclose()
    assert handle.calls[0].cancelled


@pytest.mark.parametrize("scale_to_zero", [True, False])
def test_whether_zero_is_as_it_should_be_is_taken_over_live(backend, scale_to_zero):
    backend.configure(LiveConfig(scale_to_zero=scale_to_zero))
    assert backend._probe.scale_to_zero is scale_to_zero
