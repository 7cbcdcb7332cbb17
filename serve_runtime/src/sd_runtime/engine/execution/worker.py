# SPDX-License-Identifier: Apache-2.0
"""The worker: the thread that adds prepared requests to the runner, calls its ticks, and reports the results."""

import queue
import threading
import time
from collections.abc import Callable, Sequence

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.admission import CLOSED
from sd_runtime.engine.execution.step_batch_runner import Runner, Tick
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.postprocess import previews
from sd_runtime.engine.postprocess.postprocessor import PostProcessor
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.errors import ContentWithheld, GenerationFailed
from sd_runtime.observability.observer import Observer

_MEMORY_SECONDS = 5.0  # between two measurements of the memory in use
_IDLE_SECONDS = 0.5  # without a request; by then the decoders are usually done too
_LATELY_SECONDS = 1.0  # clients that received a reply within this time may send another request


class Worker:
    """Generates the images of all requests on a thread of its own.

    Attributes:
        batch_wait_seconds: the batch wait: how long an idle engine waits, after the latest arrival, for more images to
            share the first steps. If the engine was busy within the last second, it waits for no more images than it
            had at once then. So a single client does not wait for others.
        arriving: returns the number of images that have arrived and are not ready.
        idle_seconds: time without a request after which `when_idle` is called, once.
        when_idle: does deferred work. The argument reports whether a request has arrived; the work then ends soon.
    """

    def __init__(
        self, runner: Runner, postprocessor: PostProcessor, *, on: Device, observer: Observer
    ) -> None:
        self.batch_wait_seconds = 0.0
        self.arriving: Callable[[], int] = lambda: 0
        self.idle_seconds = _IDLE_SECONDS
        self.when_idle: Callable[[Callable[[], bool]], None] = lambda _: None
        self._runner = runner
        self._postprocessor = postprocessor
        self._device = on
        self._observer = observer
        self._inbox: queue.SimpleQueue[RequestUpdates | None] = queue.SimpleQueue()
        self._streams: dict[ImageTask, RequestUpdates] = {}
        self._memory_reported = 0.0
        self._most = 0  # the largest number of images at once since the last idle time
        self._open = True
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def put(self, stream: RequestUpdates | None) -> None:
        """Add a request whose images are ready; any thread may call this.

        Args:
            stream: the updates of the request. None stops the thread after its current step, and unfinished images fail.
        """
        self._inbox.put(stream)

    def advanced(self, task: ImageTask) -> None:
        """Report a step of an image in the middle of a tick.

        Such a tick may take minutes. Requests that have arrived meanwhile receive their position in the queue.
        """
        self._take_arrived()
        self._report(Tick(advanced=[task]))
        self._watch()

    def _run(self) -> None:
        self._device.enter("drawing")
        while self._open:
            if not self._streams:
                self._rest()
            self._take_arrived()
            self._tick()
        for stream in set(self._streams.values()):
            stream.put(GenerationFailed(CLOSED))

    def _next(self) -> RequestUpdates | None:
        """Wait for a request; after `idle_seconds` without one, call `when_idle` first."""
        try:
            return self._inbox.get(timeout=self.idle_seconds)
        except queue.Empty:
            with torch.inference_mode():
                self.when_idle(lambda: not self._inbox.empty() or self.arriving() > 0)
        return self._inbox.get()

    def _rest(self) -> None:
        """Wait for the next request, and then the batch wait for more images."""
        self._observer.load(0, 0)
        self._device.at_work = False
        since, most, self._most = time.monotonic(), self._most, 0
        self._take(self._next())
        self._device.at_work = True
        lately = time.monotonic() - since < _LATELY_SECONDS
        self._company(most if most and lately else self._runner.budget.pictures)

    def _take(self, stream: RequestUpdates | None) -> None:
        if stream is None:
            self._open = False
            return
        for task in stream.tasks:
            self._streams[task] = stream
            self._runner.join(task)
        self._most = max(self._most, len(self._streams))

    def _take_arrived(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _company(self, expected: int) -> None:
        """Wait until the expected number of images has arrived, or until the batch wait of the latest one is over."""
        while self._open and len(self._streams) < min(expected, self._runner.budget.pictures):
            until = max((each.since for each in self._streams), default=0.0) + self.batch_wait_seconds
            try:
                self._take(self._inbox.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                return

    def _tick(self) -> None:
        try:
            tick = self._runner.tick()
            self._device.pace()
        except Exception as error:  # noqa: BLE001 - the images fail, and the thread continues
            lost = self._runner.tasks()
            tick = Tick(failed=[(task, error) for task in lost])
            for task in lost:
                task.cancelled = True
        self._report(tick)
        self._watch()

    def _report(self, tick: Tick) -> None:
        for task in tick.cancelled:
            if self._streams.pop(task, None) is not None:
                self._observer.outcome("cancelled")
        for task, error in tick.failed:
            if (stream := self._streams.pop(task, None)) is not None:
                self._observer.outcome("withheld" if isinstance(error, ContentWithheld) else "failed")
                stream.put(failures.reported(error, task.request.id))
        for stream in {self._streams[task]: None for task in tick.advanced if task in self._streams}:
            stream.advanced()
        for task in tick.advanced:
            number = previews.due(task)
            if number is not None and task in self._streams:
                self._postprocessor.preview(task, self._streams[task], number)
        for task in tick.finished:
            self._postprocessor.finish(task, self._streams.pop(task))

    def _watch(self) -> None:
        tasks = self._runner.tasks()
        waiting = [task for task in tasks if not task.begun]
        self._observer.load(len(waiting) + self.arriving(), len(tasks) - len(waiting))
        self._tell_waiting(waiting)
        now = time.monotonic()
        if now - self._memory_reported > _MEMORY_SECONDS:
            self._memory_reported = now
            self._observer.memory(self._device.used())

    def _tell_waiting(self, waiting: Sequence[ImageTask]) -> None:
        for task in waiting:
            stream = self._streams.get(task)
            if stream is not None and task is stream.tasks[0]:
                stream.waits(self._runner.ahead(task))
