# SPDX-License-Identifier: Apache-2.0
"""Requests on their way to the denoising loop: a thread prepares their images, so that no step waits for it.

Data flows one way: `put` on any thread, then this thread, then whoever takes what is ready. A request joins the
denoising loop when all its images are ready, in the order of arrival. What fails or is cancelled here goes no further.
"""

import queue
import threading
from collections.abc import Callable, Sequence

from sd_runtime.engine import failures
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.preparing import Prepare
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.errors import GenerationFailed
from sd_runtime.observability.observer import Observer, Outcome

CLOSED = "the engine is shut down; send the request again"
_AT_ONCE = 8  # requests whose prompts are encoded together; later ones do not wait for a longer call


class Admission:
    """Prepares the images of requests, and hands the requests over."""

    def __init__(
        self,
        prepare: Prepare,
        hand_over: Callable[[RequestUpdates | None], None],
        *,
        on: Device,
        observer: Observer,
    ) -> None:
        """Start the thread.

        Args:
            prepare: makes images ready.
            hand_over: takes a request whose images are ready; None: nothing more will come.
            on: where it computes.
            observer: counts the images that end here.
        """
        self._prepare = prepare
        self._hand_over = hand_over
        self._device = on
        self._observer = observer
        self._inbox: queue.SimpleQueue[RequestUpdates | None] = queue.SimpleQueue()
        self._held: set[RequestUpdates] = set()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="admission", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still prepares."""
        return self._thread.is_alive()

    def waiting(self) -> int:
        """Images that have arrived and are not ready."""
        return sum(len(stream.tasks) for stream in tuple(self._held))

    def put(self, stream: RequestUpdates) -> None:
        """Prepare the images of a request; from any thread."""
        self._held.add(stream)
        self._inbox.put(stream)
        if not self._open:
            stream.put(GenerationFailed(CLOSED))

    def close(self) -> None:
        """End the thread after what it prepares now; requests that wait fail, and nothing more is handed over."""
        self._open = False
        self._inbox.put(None)

    def _run(self) -> None:
        self._device.enter("preparing")
        while self._open:
            self._admit(self._arrived())
        for stream in tuple(self._held):
            stream.put(GenerationFailed(CLOSED))
        self._hand_over(None)

    def _arrived(self) -> Sequence[RequestUpdates]:
        """Wait for a request; it and others that have arrived meanwhile."""
        found = [self._inbox.get()]
        while len(found) < _AT_ONCE and not self._inbox.empty():
            found.append(self._inbox.get())
        return [stream for stream in found if stream is not None]

    def _admit(self, streams: Sequence[RequestUpdates]) -> None:
        failed = self._failed([each for stream in streams for each in stream.tasks if not each.cancelled])
        for stream in streams:
            self._held.discard(stream)
            error = next((failed[each] for each in stream.tasks if each in failed), None)
            if error is not None:
                self._fail(stream, error, failed)
            elif all(each.cancelled for each in stream.tasks):
                self._report("cancelled", stream.tasks)
            else:
                self._hand_over(stream)

    def _failed(self, tasks: Sequence[ImageTask]) -> dict[ImageTask, Exception]:
        """Prepare images; those that fail, and why."""
        try:
            return dict(self._prepare(tasks)) if tasks else {}
        except Exception as error:  # noqa: BLE001 - a fault of the device; the thread outlives it, and these images fail
            return dict.fromkeys(tasks, error)

    def _fail(self, stream: RequestUpdates, error: Exception, failed: dict[ImageTask, Exception]) -> None:
        stream.cancel()
        self._report("failed", [each for each in stream.tasks if each in failed])
        self._report("cancelled", [each for each in stream.tasks if each not in failed])
        stream.put(failures.told(error, stream.tasks[0].request.id))

    def _report(self, outcome: Outcome, tasks: Sequence[ImageTask]) -> None:
        for _ in tasks:
            self._observer.outcome(outcome)
