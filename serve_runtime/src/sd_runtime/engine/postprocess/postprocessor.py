# SPDX-License-Identifier: Apache-2.0
"""Decoding, previews and file encoding of images, on separate threads so that no denoising step waits for them.

One thread decodes, on its own CUDA stream; a few others encode files. Cancelled images are dropped first.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from sd_runtime.engine import device, failures
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import Picture, Preview
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.engine.postprocess.previews import LatentColours
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.errors import ContentWithheld
from sd_runtime.observability.observer import Observer

_FILE_THREADS = 2

Encode = Callable[[Image.Image, ImageTask], bytes]


@dataclass(frozen=True)
class _Job:
    task: ImageTask
    stream: RequestUpdates
    latents: torch.Tensor
    ready: Any  # the CUDA event after which the latents are computed


class PostProcessor:
    """Turns latents into files and puts them into the request's updates; decodes up to `pixels` at once."""

    def __init__(
        self,
        decoder: Decoder | None,
        colours: LatentColours | None,
        encode: Encode,
        *,
        pixels: int,
        on: device.Device,
        observer: Observer,
    ) -> None:
        self._pixels = pixels
        self._decoder = decoder
        self._colours = colours
        self._encode = encode
        self._device = on
        self._observer = observer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._files = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="files")
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the decoding thread is running."""
        return self._thread.is_alive()

    def finish(self, task: ImageTask, stream: RequestUpdates) -> None:
        """Queue a denoised image for decoding and encoding; the denoising thread calls it."""
        if task.image is not None:
            self._submit(self._file, task, stream, task.image)
            return
        latents, task.trajectory = task.trajectory.latents, None
        self._jobs.put(_Job(task, stream, latents, self._device.mark()))

    def preview(self, task: ImageTask, stream: RequestUpdates, number: int) -> None:
        """Queue a preview of an image, if its latents can be shown; the denoising thread calls it."""
        if self._colours is not None:
            job = _Job(task, stream, task.trajectory.predicted(), self._device.mark())
            self._submit(self._preview, job, self._colours, number)

    def close(self) -> None:
        """End the threads after their current jobs."""
        self._is_open = False
        self._jobs.put(None)
        self._files.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        self._device.enter("decoding")
        waiting: list[_Job] = []
        while (job := waiting.pop(0) if waiting else self._jobs.get()) is not None:
            batch = [job, *self._company(job, waiting)]
            self._decode([each for each in batch if not self._gone(each)])

    def _company(self, job: _Job, waiting: list[_Job]) -> list[_Job]:
        """Take from the waiting jobs the images of the same size that can be decoded with this one."""
        while not self._jobs.empty():
            if (more := self._jobs.get()) is None:
                self._jobs.put(None)
                break
            waiting.append(more)
        kind = job.task.kind
        room = self._pixels // (kind.height * kind.width) - 1
        chosen = [other for other in waiting if other.latents.shape == job.latents.shape][: max(0, room)]
        waiting[:] = [other for other in waiting if other not in chosen]
        return chosen

    def _gone(self, job: _Job) -> bool:
        if job.task.cancelled:
            self._observer.outcome("cancelled")
        return job.task.cancelled

    def _decode(self, jobs: Sequence[_Job]) -> None:
        if not jobs or self._decoder is None:
            return
        try:
            self._device.wait([job.ready for job in jobs])
            began = time.monotonic()
            with torch.inference_mode(), self._device.aside([(job.latents, job.ready) for job in jobs]):
                results = self._decoder.decode([job.latents for job in jobs])
        except Exception as error:  # noqa: BLE001 - after a device error these images fail, and the thread continues
            for job in jobs:
                self._fail(job.task, job.stream, error)
            return
        for job, result in zip(jobs, results, strict=True):
            self._observer.phase("decode", time.monotonic() - began)
            if isinstance(result, ContentWithheld):
                self._withhold(job.task, job.stream)
            elif isinstance(result, Exception):
                self._fail(job.task, job.stream, result)
            else:
                self._submit(self._file, job.task, job.stream, result)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run work on the file threads; after `close` nothing is run, because no request waits any more."""
        try:
            self._files.submit(work, *arguments)
        except RuntimeError:
            if self._is_open:
                raise

    def _file(self, task: ImageTask, stream: RequestUpdates, image: Image.Image) -> None:
        began = time.monotonic()
        try:
            data = self._encode(image, task)
        except Exception as error:  # noqa: BLE001 - this image fails, and the thread continues
            self._fail(task, stream, error)
            return
        self._observer.phase("file", time.monotonic() - began)
        self._observer.outcome("drawn")
        seconds = time.monotonic() - task.asked
        stream.put(Picture(task.index, data, task.seed, seconds, task.warnings))

    def _preview(self, job: _Job, colours: LatentColours, number: int) -> None:
        if job.task.cancelled:
            return
        try:
            with torch.inference_mode(), self._device.aside([(job.latents, job.ready)]):
                image = colours.image(job.latents)
            data = self._encode(image, job.task)
            job.stream.put(Preview(job.task.index, number, data, job.task.warnings))
        except Exception as error:  # noqa: BLE001 - an image does not fail with its preview
            failures.reported(error, job.task.request.id)

    def _withhold(self, task: ImageTask, stream: RequestUpdates) -> None:
        self._observer.outcome("withheld")
        stream.put(ContentWithheld.image(task.index, task.request.count))

    def _fail(self, task: ImageTask, stream: RequestUpdates, error: Exception) -> None:
        self._observer.outcome("failed")
        stream.put(failures.reported(error, task.request.id))
