# SPDX-License-Identifier: Apache-2.0
"""Routes that describe the service: its model, its health, its readiness and the start of its replicas."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import JSONResponse

from sd_runtime import __version__
from sd_runtime.api import openapi
from sd_runtime.api.dependencies import TheService
from sd_runtime.api.errors import Unavailable
from sd_runtime.api.query import no_query
from sd_runtime.api.schemas import ModelCard, ModelList
from sd_runtime.api.service import Service

router = APIRouter(tags=["service"], dependencies=[Depends(no_query)])
_READY = {
    "description": "The service can generate an image: a replica is running, or a request will start one.",
    "content": {
        "application/json": {
            "example": {
                "ready": True,
                "phase": "ready",
                "version": __version__,
                "device": "cpu",
                "dtype": "float32",
                "versions": {"ray": "2.60.0", "torch": "2.15.0"},
                "load_seconds": {"import": 10.2, "weights": 0.0, "pipeline": 0.8},
                "model": {"uri": "bundled://shapes", "revision": None},
            }
        }
    },
}
_NOT_YET = {
    "description": "The service cannot generate an image yet. The body has the phase: starting or loading.",
    "content": {
        "application/json": {"example": {"ready": False, "phase": "loading", "version": __version__}}
    },
}
_STARTS = {
    "description": "Replicas that are starting or started within the last hour, by their Ray Serve replica id.",
    "content": {
        "application/json": {
            "example": {
                "starts": {
                    "k3v9x0qz": {
                        "began": 1767323045.2,
                        "seconds": {"import": 10.2, "weights": 17.8},
                        "phase": "pipeline",
                        "since": 1767323073.2,
                        "first_picture_seconds": None,
                        "ray": "2.60.0",
                        "revision": "0123456789abcdef0123456789abcdef01234567",
                    }
                }
            }
        }
    },
}
_ALIVE = {
    "description": "The ingress process answers.",
    "content": {"application/json": {"example": {"status": "alive"}}},
}


@router.get("/v1/models", summary="List the model", responses=openapi.errors(400))
async def models(service: TheService) -> ModelList:
    """List the one model of this service, its device and data type, and the limits and defaults of a request."""
    return ModelList(data=[await _card(service)])


@router.get("/v1/models/{model:path}", summary="Describe the model", responses=openapi.errors(400, 404))
async def model(
    model: Annotated[
        str,
        Path(
            max_length=1024,
            description="The model's `id` in `GET /v1/models`.",
            examples=["bundled://shapes"],
        ),
    ],
    service: TheService,
) -> ModelCard:
    """Describe the model with this name."""
    if model != service.config.model.uri:
        raise Unavailable(404, f"this service serves only the model {service.config.model.uri}")
    return await _card(service)


@router.get(
    "/healthz", summary="Report that the ingress is alive", responses=openapi.errors(400) | {200: _ALIVE}
)
async def healthz() -> dict[str, str]:
    """Answer 200 while the ingress process is alive. The state of the model has no influence."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Report whether the service is ready",
    responses=openapi.errors(400) | {200: _READY, 503: _NOT_YET},
)
async def readyz(service: TheService) -> JSONResponse:
    """Answer 200 if the service can generate an image. The body has the phase, device, versions and load times."""
    state = await service.backend.readiness()
    info = await service.backend.info()
    body = {"ready": state.ready, "phase": state.phase, "version": __version__}
    body |= {} if info is None else asdict(info)
    body["model"] = service.config.model.model_dump(include={"uri", "revision"})
    return JSONResponse(body, status_code=200 if state.ready else 503)


@router.get(
    "/startz",
    summary="Report the starts of the replicas",
    responses=openapi.errors(400, 503) | {200: _STARTS},
)
async def startz(service: TheService) -> JSONResponse:
    """Report the start of each replica: its current phase and the seconds of each phase. No replica is called."""
    found = await service.backend.starts()
    return JSONResponse({"starts": {replica: asdict(report) for replica, report in found.items()}})


async def _card(service: Service) -> ModelCard:
    model = service.config.model
    info = await service.backend.info()
    card = ModelCard(
        id=model.uri,
        revision=model.revision,
        loras=[lora.name for lora in service.config.loras],
        limits=service.live.limits.model_dump(),
    )
    if info is not None:
        card.defaults = info.defaults | service.live.defaults.model_dump(exclude_none=True)
        card.dtype, card.device, card.optimizations = info.dtype, info.device, info.optimizations
        card.quantization = info.quantization
        card.batching, card.loras = info.batching, list(info.loras)
        card.schedulers = {name: list(options) for name, options in info.schedulers.items()}
    return card
