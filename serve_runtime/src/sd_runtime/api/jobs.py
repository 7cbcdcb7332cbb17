# SPDX-License-Identifier: Apache-2.0
"""Routes for jobs: create a job, poll its progress, fetch its images, and delete it."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sd_runtime.api import content_negotiation, errors, openapi, responses, validation
from sd_runtime.api.dependencies import RequestId, TheJobs, TheService, TheWanted
from sd_runtime.api.errors import Unavailable
from sd_runtime.api.json_body import JsonRoute
from sd_runtime.api.query import no_query, plain_number
from sd_runtime.api.schemas import GenerationBody, WarningNote
from sd_runtime.api.service import Service
from sd_runtime.errors import InvalidRequest
from sd_runtime.store import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(no_query)], route_class=JsonRoute)

JobId = Annotated[
    str, Path(max_length=128, description="Id of the job.", examples=["job-0123456789abcdef0123456789abcdef"])
]
Index = Annotated[
    int,
    Path(ge=0, le=15, description="Number of the image in the job, from 0.", examples=[0]),
    BeforeValidator(partial(plain_number, name="index")),
]


class JobImage(BaseModel):
    """One finished image of a job."""

    index: int
    url: str = Field(description="Path of the image file.")
    seed: int = Field(description="A request with this seed generates the same image.")
    bytes: int = Field(description="Size of the file in bytes.")


class JobAnswer(BaseModel):
    """The current state of a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "job-0123456789abcdef0123456789abcdef",
                "object": "job",
                "state": "running",
                "step": 9,
                "steps": 30,
                "queue_position": 0,
                "eta_seconds": 1.4,
                "error": None,
                "warnings": [],
                "images": [],
                "expires_in_seconds": None,
            }
        }
    )

    id: str
    object: str = "job"
    state: jobs.State
    step: int = Field(description="Finished denoising steps, over all images of the job.")
    steps: int | None = Field(
        description="Total denoising steps, over all images; null until the engine has accepted the job."
    )
    queue_position: int | None = Field(
        description="Number of images that wait before those of this job; null until it is known."
    )
    eta_seconds: float | None = Field(
        description="Estimated seconds until the job ends, from measured speed; null until it is known."
    )
    error: dict[str, str | None] | None = Field(
        description="Why the job failed, in the format of an error response; null if it did not fail."
    )
    warnings: list[WarningNote] = Field(
        description="Parts of the request that have no effect; empty until the engine has accepted the job."
    )
    images: list[JobImage]
    expires_in_seconds: float | None = Field(
        description="Seconds until the job and its images are deleted; null while the job is not finished."
    )


@router.post(
    "",
    summary="Start a job",
    status_code=202,
    response_model=JobAnswer,
    responses={
        202: {
            "description": "The job is accepted. The header Location has its path.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **openapi.errors(400, 408, 413, 415, 429, 500, 503, 504),
    },
)
async def create(
    body: GenerationBody, service: TheService, store: TheJobs, request_id: RequestId
) -> Response:
    """Start a job. The body is that of `POST /v1/images/generations`, without `stream`.

    The ingress keeps jobs in its memory. When the ingress is replaced, its jobs are lost and GET answers 404.
    """
    if body.stream:
        raise InvalidRequest("stream: got true: must be false or absent, since jobs do not stream", "stream")
    request = validation.from_body(body, service.policy(), validation.any_seed(), request_id)
    try:
        job = await store.start(request)
    except jobs.TooManyJobs as error:
        seconds = service.requests.retry_after(service.clock())
        raise Unavailable(429, f"too many jobs are unfinished; retry in {seconds} s", seconds) from error
    return JSONResponse(
        _answer(job, service, store).model_dump(), 202, headers={"Location": f"/v1/jobs/{job.id}"}
    )


@router.get("/{job_id}", summary="Read the state of a job", responses=openapi.errors(400, 404))
async def read(job_id: JobId, service: TheService, store: TheJobs) -> JobAnswer:
    """Report the state of a job: progress, queue position, estimated time left, and the paths of finished images."""
    return _answer(_find(store, job_id), service, store)


@router.get(
    "/{job_id}/images/{index}",
    summary="Fetch an image of a job",
    response_class=Response,
    responses={
        200: {"description": "The image.", "content": openapi.pictures("png", "jpeg", "webp")},
        **openapi.errors(400, 404, 406, 409),
    },
)
async def image(job_id: JobId, index: Index, store: TheJobs, wanted: TheWanted) -> Response:
    """Fetch one image of a job. Each image is available as soon as it is finished."""
    job = _find(store, job_id)
    content_negotiation.check(wanted.accept, (f"image/{job.file_format}",))
    picture = job.pictures.get(index)
    if picture is not None:
        headers = {"x-seed": str(picture.seed), "Cache-Control": "no-store"}
        headers |= responses.warning_headers(picture.warnings)
        return Response(picture.data, media_type=f"image/{job.file_format}", headers=headers)
    if job.finished or index >= job.request.count:
        raise Unavailable(404, f"the job is {job.state} and has no image {index}")
    raise Unavailable(409, f"the job is {job.state}; image {index} is not finished yet")


@router.delete("/{job_id}", summary="Cancel or delete a job", responses=openapi.errors(400, 404))
async def delete(job_id: JobId, service: TheService, store: TheJobs) -> JobAnswer:
    """Cancel an unfinished job, or delete a finished job with its images. The response is the last state of the job."""
    job = _find(store, job_id)
    await store.delete(job)
    return _answer(job, service, store)


def _find(store: jobs.JobStore, job_id: str) -> jobs.Job:
    job = store.find(job_id)
    if job is None:
        minutes = jobs.KEPT_SECONDS // 60
        message = f"no job has this id; a job is deleted {minutes} minutes after its end, or earlier"
        raise Unavailable(404, message)
    return job


def _answer(job: jobs.Job, service: Service, store: jobs.JobStore) -> JobAnswer:
    error = None if job.error is None else errors.problem(job.error, job.request.id).body["error"]
    return JobAnswer(
        id=job.id,
        state=job.state,
        step=job.step,
        steps=job.steps,
        queue_position=job.ahead,
        eta_seconds=job.eta_seconds(service.clock(), service.pictures.per_second()),
        error=error,
        warnings=responses.notes(job.warnings),
        images=[
            JobImage(
                index=each.index,
                url=f"/v1/jobs/{job.id}/images/{each.index}",
                seed=each.seed,
                bytes=len(each.data),
            )
            for each in sorted(job.pictures.values(), key=lambda picture: picture.index)
        ],
        expires_in_seconds=store.expires_in(job),
    )
