# SPDX-License-Identifier: Apache-2.0
"""Admission: a thread prepares the image tasks of each request before they join the denoising loop.

No denoising step waits for this preparation. Data flows one way: any thread calls `put`, the admission thread prepares
the tasks, and the worker receives them. A request joins the denoising loop when all its images are ready, in the
order of arrival. Requests that fail or are cancelled here go no further.
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
_AT_ONCE = 8  # requests whose prompts are encoded together; with more, the next requests would wait for a longer call


class Admission:
    """Prepares the image tasks of requests, and hands the requests over to the worker."""

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
            prepare: prepares image tasks.
            hand_over: receives a request whose images are ready; None: no more requests follow.
            on: the device that encodes the prompts.
            observer: counts the images that fail or are cancelled here.
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
        """Whether the thread still prepares requests."""
        return self._thread.is_alive()

    def waiting(self) -> int:
        """Return the number of images that have arrived and are not ready."""
        return sum(len(stream.tasks) for stream in tuple(self._held))

    def put(self, stream: RequestUpdates) -> None:
        """Prepare the images of a request; any thread may call this."""
        self._held.add(stream)
        self._inbox.put(stream)
        if not self._open:
            stream.put(GenerationFailed(CLOSED))

    def close(self) -> None:
        """Stop the thread after its current work; waiting requests fail, and no more requests are handed over."""
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
        """Wait for a request; return this request and others that have arrived meanwhile."""
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
        """Prepare images; return those that failed, each with its error."""
        try:
            return dict(self._prepare(tasks)) if tasks else {}
        except Exception as error:  # noqa: BLE001 - on a device fault these images fail, and the thread continues
            return dict.fromkeys(tasks, error)

    def _fail(self, stream: RequestUpdates, error: Exception, failed: dict[ImageTask, Exception]) -> None:
        stream.cancel()
        self._report("failed", [each for each in stream.tasks if each in failed])
        self._report("cancelled", [each for each in stream.tasks if each not in failed])
        stream.put(failures.reported(error, stream.tasks[0].request.id))

    def _report(self, outcome: Outcome, tasks: Sequence[ImageTask]) -> None:
        for _ in tasks:
            self._observer.outcome(outcome)
