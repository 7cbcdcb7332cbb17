# SPDX-License-Identifier: Apache-2.0
"""The `ingress` deployment: HTTP in, a call of a model replica, HTTP out. It computes nothing itself."""

import asyncio
import base64
import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import JSONResponse
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from sd_runtime import __version__, http_errors
from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.engine import ImageRequest, Picture
from sd_runtime.http_errors import Unavailable
from sd_runtime.protocol import (
    GeneratedImage,
    GenerationAnswer,
    GenerationBody,
    ImagineQuery,
    ModelCard,
    ModelList,
    any_seed,
    check_model,
    error_body,
    from_body,
    from_imagine,
)
from sd_runtime.readiness import ReadinessProbe

api = FastAPI(
    title="Image generation",
    version=__version__,
    description="Prompts in, pictures out. `GET /imagine` is the shortest way; `/v1` speaks OpenAI's images API.",
)
http_errors.install(api)

_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"application/json": {"example": error_body(text, kind=kind)}}}
    for code, text, kind in (
        (400, "img_size: got 7: must be a multiple of 8 from 64 to 1024 pixels", "invalid_request_error"),
        (429, "the queue is full", "rate_limit_error"),
        (503, "no replica is ready", "server_error"),
        (504, "not done within the time limit", "server_error"),
    )
}


@serve.ingress(api)
class Ingress:
    """Routes; one instance is enough, since each request only waits here."""

    def __init__(self, model: DeploymentHandle, config: RuntimeConfig) -> None:
        self._model = model
        self._config = config
        self._live = LiveConfig()
        self._readiness = ReadinessProbe(model, scale_to_zero=config.scale_to_zero)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over a LiveConfig without a restart."""
        self._live = LiveConfig.model_validate(user_config)

    @api.get("/imagine", response_class=Response, responses={200: {"content": {"image/png": {}}}, **_ERRORS})
    async def imagine(self, query: Annotated[ImagineQuery, Query()]) -> Response:
        """Draw one picture: `/imagine?prompt=a red circle&img_size=64`. The answer is a PNG file."""
        request = from_imagine(query, self._live.limits, self._live.defaults, any_seed())
        (picture,) = await self._draw(request)
        return Response(picture.png, media_type="image/png", headers={"x-seed": str(picture.seed)})

    @api.post("/v1/images/generations", responses=_ERRORS)
    async def generations(self, body: GenerationBody, response: Response) -> GenerationAnswer:
        """Draw pictures, as OpenAI's images API; seed, steps, guidance and negative prompt are top-level extras."""
        check_model(body, self._config.model.uri)
        request = from_body(body, self._live.limits, self._live.defaults, any_seed())
        pictures = await self._draw(request)
        response.headers["x-seed"] = str(pictures[0].seed)
        images = [GeneratedImage(b64_json=base64.b64encode(each.png).decode()) for each in pictures]
        return GenerationAnswer(created=int(time.time()), data=images)

    @api.get("/v1/models")
    async def models(self) -> ModelList:
        """The one model that is served."""
        return ModelList(data=[ModelCard(id=self._config.model.uri)])

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """The process is alive; says nothing about the model."""
        return {"status": "alive"}

    @api.get("/readyz", responses={503: {"description": "No picture can be made yet."}})
    async def readyz(self) -> JSONResponse:
        """200 once a picture can be made; the body tells phase, device, versions and load times."""
        body = await self._readiness.describe()
        body["model"] = self._config.model.model_dump(include={"uri", "revision"})
        return JSONResponse(body, status_code=200 if body["ready"] else 503)

    async def _draw(self, request: ImageRequest) -> list[Picture]:
        """Have a replica draw; a request that finds none waits for a cold start."""
        limits = self._live.limits
        waits_for_start = (await self._readiness.read()).phase != "ready"
        seconds = limits.timeout_seconds + (limits.cold_start_timeout_seconds if waits_for_start else 0)
        call = self._model.generate.remote(request)
        try:
            async with asyncio.timeout(seconds):
                pictures: list[Picture] = await call
        except BackPressureError as error:
            raise Unavailable(
                429, "the queue of every replica is full; try again later", retry_after=2
            ) from error
        except DeploymentUnavailableError as error:
            raise Unavailable(503, "the model failed to start", retry_after=30) from error
        except (RayActorError, ReplicaUnavailableError) as error:
            raise Unavailable(503, "the replica was lost; send the request again", retry_after=1) from error
        except TimeoutError as error:
            call.cancel()
            if (await self._readiness.read()).phase != "ready":
                raise Unavailable(
                    503, f"no replica became ready within {seconds} s", retry_after=30
                ) from error
            raise Unavailable(504, f"not done within {seconds} s (limits.timeoutSeconds)") from error
        return pictures
