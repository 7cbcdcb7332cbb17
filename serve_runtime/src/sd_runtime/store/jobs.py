# SPDX-License-Identifier: Apache-2.0
"""Jobs: requests whose images the client fetches later. The one ingress replica keeps them in its memory.

Finished jobs are kept for a limited time, and within a maximum number and a maximum of bytes. The oldest are deleted
first.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Literal

from sd_runtime.engine.interface import FileFormat, ImageRequest, Picture, Progress, RequestWarning, Update
from sd_runtime.errors import RuntimeFailure

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Draw = Callable[[ImageRequest], AsyncGenerator[Update]]

KEPT_SECONDS = 900
MAX_JOBS = 1000
MAX_BYTES = 256 * 1024 * 1024
_REFUSAL_SECONDS = 0.25


class TooManyJobs(RuntimeFailure):
    """The maximum number of jobs exists, and all of them are unfinished."""


@dataclass
class Job:
    """One request and its progress.

    Attributes:
        created: creation time, in seconds on the store's clock.
        began: time of the first denoising step, on the same clock; None before.
        ended: time of the end, on the same clock; None before.
        ahead: number of images that wait before those of this job; None until the engine has reported it.
        steps: denoising steps of all its images together; None until the engine has reported them.
    """

    id: str
    request: ImageRequest
    created: float
    state: State = "queued"
    began: float | None = None
    ended: float | None = None
    ahead: int | None = None
    step: int = 0
    steps: int | None = None
    error: BaseException | None = None
    pictures: dict[int, Picture] = field(default_factory=dict)
    warnings: tuple[RequestWarning, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the job has ended."""
        return self.ended is not None

    @property
    def size(self) -> int:
        """Total size of its images in bytes."""
        return sum(len(picture.data) for picture in self.pictures.values())

    @property
    def file_format(self) -> FileFormat:
        """File format of its images."""
        return self.request.output.format

    def take(self, update: Update, now: float) -> None:
        """Record an update of the engine."""
        self.warnings = update.warnings
        if isinstance(update, Picture):
            self.pictures[update.index] = update
        elif isinstance(update, Progress):
            self.ahead, self.step, self.steps = update.ahead, update.step, update.steps
        if self.began is None and (self.step or self.ahead == 0):
            self.state, self.began = "running", now

    def end(self, state: State, now: float, error: BaseException | None = None) -> None:
        """Record the end of the job."""
        self.state, self.ended, self.error = state, now, error
        if state == "succeeded":
            self.step, self.ahead = self.steps or self.step, 0
        else:
            self.pictures.clear()

    def eta_seconds(self, now: float, pictures_per_second: float | None) -> float | None:
        """Estimated seconds until the end: from its own steps once it runs, and before from the service's throughput."""
        if self.finished:
            return 0.0
        if self.began is not None and self.step and self.steps and now > self.began:
            return (self.steps - self.step) * (now - self.began) / self.step
        if self.ahead is None or not pictures_per_second:
            return None
        return (self.ahead + self.request.count) / pictures_per_second


class JobStore:
    """All jobs that are running or kept."""

    def __init__(
        self,
        draw: Draw,
        clock: Callable[[], float],
        *,
        kept_seconds: float = KEPT_SECONDS,
        max_jobs: int = MAX_JOBS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._draw = draw
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, request: ImageRequest) -> Job:
        """Start a job. The call returns when the engine has accepted it, or after 0.25 seconds without an error.

        Raises:
            TooManyJobs: the maximum number of jobs exists, and all of them are unfinished.
            Exception: the engine rejected the request at once. The job does not exist then.
        """
        self._forget_old()
        if len(self._jobs) >= self._max_jobs and not self._forget_oldest():
            raise TooManyJobs
        job = Job(f"job-{secrets.token_hex(16)}", request, self._clock())
        self._jobs[job.id] = job
        answered = asyncio.Event()
        task = asyncio.create_task(self._run(job, answered), name=job.id)
        self._tasks[job.id] = task
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(answered.wait(), _REFUSAL_SECONDS)
        except asyncio.CancelledError:
            task.cancel()  # no client knows the id of this job
            raise
        if job.error is not None:
            self._jobs.pop(job.id, None)  # another job may have replaced it already
            raise job.error
        return job

    def find(self, job_id: str) -> Job | None:
        """The job with this id, or None."""
        self._forget_old()
        return self._jobs.get(job_id)

    async def delete(self, job: Job) -> None:
        """Cancel an unfinished job, or delete a finished job with its images."""
        task = self._tasks.get(job.id)
        if task is None:
            self._jobs.pop(job.id, None)
            return
        task.cancel()
        await asyncio.wait([task])

    async def close(self) -> None:
        """Cancel or delete all jobs."""
        for job in list(self._jobs.values()):
            await self.delete(job)

    def expires_in(self, job: Job) -> float | None:
        """Seconds until a finished job expires; None while it is unfinished. Newer jobs may replace it earlier."""
        return None if job.ended is None else max(0.0, job.ended + self._kept_seconds - self._clock())

    async def _run(self, job: Job, answered: asyncio.Event) -> None:
        try:
            async with aclosing(self._draw(job.request)) as updates:
                async for update in updates:
                    job.take(update, self._clock())
                    answered.set()
            job.end("succeeded", self._clock())
        except asyncio.CancelledError:
            job.end("cancelled", self._clock())
            # The exception ends here: the task was cancelled on purpose, and its callers continue.
        except Exception as error:  # noqa: BLE001 - the job reports the error to its client
            job.end("failed", self._clock(), error)
        finally:
            answered.set()
            del self._tasks[job.id]
            self._fit(job)

    def _finished(self) -> list[Job]:
        return sorted((job for job in self._jobs.values() if job.finished), key=lambda job: job.ended or 0)

    def _forget_old(self) -> None:
        for job in self._finished():
            if self.expires_in(job) == 0:
                del self._jobs[job.id]

    def _forget_oldest(self, kept: Job | None = None) -> bool:
        finished = [job for job in self._finished() if job is not kept]
        if finished:
            del self._jobs[finished[0].id]
        return bool(finished)

    def _fit(self, newest: Job) -> None:
        """Delete the oldest finished jobs until all images fit. The newest job stays, since no client has read it yet."""
        while sum(job.size for job in self._jobs.values()) > self._max_bytes and self._forget_oldest(newest):
            pass
