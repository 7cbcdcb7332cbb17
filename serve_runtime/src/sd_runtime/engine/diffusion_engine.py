# SPDX-License-Identifier: Apache-2.0
"""The diffusers engine: connects the event loop to the threads that prepare, generate, decode and encode images."""

import asyncio
import platform
from collections.abc import AsyncGenerator
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from PIL import Image

from sd_runtime.config import LiveConfig
from sd_runtime.engine.defaults import side_multiple
from sd_runtime.engine.device import cores
from sd_runtime.engine.execution import warmup
from sd_runtime.engine.execution.admission import Admission
from sd_runtime.engine.execution.pipeline_runner import PipelineRunner, arguments, guided
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.execution.worker import Worker
from sd_runtime.engine.image_task import ImageTask, tasks
from sd_runtime.engine.interface import EngineInfo, ImageRequest, RequestWarning, Update, check_loras
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.postprocess import encode, provenance
from sd_runtime.engine.postprocess.decode import Decoder, has_safety_checker
from sd_runtime.engine.postprocess.postprocessor import PostProcessor
from sd_runtime.engine.prompts import request_warnings
from sd_runtime.engine.prompts.limits import PromptLimits
from sd_runtime.engine.request_updates import RequestUpdates
from sd_runtime.engine.sampling import schedulers
from sd_runtime.engine.sampling.step_noise import NoiseAhead
from sd_runtime.errors import GenerationFailed, InvalidRequest
from sd_runtime.observability.observer import Observer, Silent

# Pixels. Small images are decoded together. Large images gain nothing by it. A compiled decoder takes one at a time.
_DECODED_AT_ONCE = 512 * 512


class DiffusionEngine:
    """Generates images with a loaded model; see `sd_runtime.engine.interface.Engine`."""

    def __init__(self, model: LoadedModel, live: LiveConfig, observer: Observer | None = None) -> None:
        self._model = model
        self._live = live
        self._limits = None if model.family else PromptLimits(model.pipeline)
        self._no_previews = _no_previews(model)
        watching = observer or Silent()
        self._runner = runner(model, watching)
        self._postprocessor = PostProcessor(
            Decoder(model.pipeline, cores(), model.device.spare) if model.family else None,
            None if self._no_previews else model.colours,
            self._encode,
            pixels=0 if model.tuned.effective["compile"] else _DECODED_AT_ONCE,
            on=model.device,
            observer=watching,
        )
        self._worker = Worker(self._runner, self._postprocessor, on=model.device, observer=watching)
        self._noise = NoiseAhead(model.device)
        self._admission = Admission(
            preparation(model, watching, self._noise.put),
            self._worker.put,
            on=model.device,
            observer=watching,
        )
        self._worker.arriving = self._admission.waiting
        if model.tuned.graphs is not None:
            self._worker.when_idle = model.tuned.graphs.capture_repeated
        for each in model.tuned.compiled:
            each.on_call = watching.network_call
        if isinstance(self._runner, PipelineRunner):
            self._runner.on_step = self._worker.advanced
        self.configure(live)

    def info(self) -> EngineInfo:
        """Return the device, the model settings and the library versions that the engine uses."""
        model = self._model
        versions = {name: version(name) for name in ("sd-runtime", "ray", "torch", "diffusers")}
        versions["python"] = platform.python_version()
        return EngineInfo(
            device=model.device.kind,
            dtype=model.dtype,
            quantization=model.config.model.quantization,
            versions=versions,
            load_seconds=dict(model.seconds),
            defaults=self._defaults() | {"scheduler": schedulers.name_of(model.pipeline.scheduler)},
            optimizations=dict(model.tuned.effective),
            loras=model.loras.names,
            batching=model.batching,
            schedulers=dict(schedulers.offered(model.pipeline.scheduler)) if model.family else {},
        )

    def configure(self, live: LiveConfig) -> None:
        """Apply new settings from the next step on."""
        self._live = live
        if not isinstance(self._runner, PipelineRunner):
            self._runner.budget.pictures = live.batching.max_batch_size
        self._worker.batch_wait_seconds = live.batching.max_wait_milliseconds / 1000
        warmup.prepare(self._model, live)

    async def generate(self, request: ImageRequest) -> AsyncGenerator[Update, None]:
        """Generate the images of a request; closing the iterator stops the work within a step."""
        stream = self._stream(self._checked(request))
        self._admission.put(stream)
        try:
            async for update in stream.updates():
                yield update
        finally:
            # Also when one image failed: the client no longer waits for the other images of the request.
            stream.cancel()

    async def check(self) -> None:
        """Raise if a thread has died or the device no longer computes."""
        threads = (self._admission, self._noise, self._worker, self._postprocessor)
        if not all(each.alive for each in threads):
            raise GenerationFailed("a thread of the engine has stopped; Ray Serve replaces this replica")
        await asyncio.to_thread(self._model.device.touch)

    def close(self) -> None:
        """Stop the engine's threads."""
        if self._admission.alive:
            self._admission.close()  # after its current work; the admission thread then stops the worker
        else:
            self._worker.put(None)
        self._noise.close()
        self._postprocessor.close()
        for each in self._model.tuned.compiled:
            each.close()

    def _defaults(self) -> dict[str, Any]:
        """Return the service's defaults, completed by the model's own."""
        own = asdict(self._model.defaults)
        return own | self._live.defaults.model_dump(exclude_none=True)

    def _checked(self, request: ImageRequest) -> ImageRequest:
        """Return the request with every default filled in; raise if the model cannot generate it."""
        defaults = self._defaults()
        missing = {name: value for name, value in defaults.items() if getattr(request, name) is None}
        filled = replace(request, **missing)
        # The ingress has checked already, against its own configuration. During a rollout a replica may have another.
        check_loras(filled, self._model.loras.names, self._model.loras.refused)
        filled = replace(filled, lora_strengths=self._model.loras.changed(filled.lora_strengths))
        pipeline = self._model.pipeline
        _check_sides(filled, side_multiple(pipeline))
        if self._model.family is None:
            arguments(pipeline, filled)
        else:
            schedulers.fresh(pipeline.scheduler, filled.scheduler, filled.steps or 1, filled.schedule)
        return filled

    def _stream(self, request: ImageRequest) -> RequestUpdates:
        pictures = tasks(request, self._model.family, self._warnings(request))
        return RequestUpdates(pictures, asyncio.get_running_loop())

    def _warnings(self, request: ImageRequest) -> tuple[RequestWarning, ...]:
        """Return a warning for each part of a request that this model ignores; every default is filled in."""
        family, pipeline = self._model.family, self._model.pipeline
        with_negative = family.rows(request.guidance or 0.0) > 1 if family else guided(pipeline, request)
        found = [*request_warnings.of_request(request, guided=with_negative)]
        if self._limits is not None:
            found += self._limits.warnings(request)
        if request.output.previews and self._no_previews:
            found.append(request_warnings.without_previews(request, self._no_previews))
        return tuple(found)

    def _encode(self, image: Image.Image, task: ImageTask) -> bytes:
        request = task.request
        parameters = provenance.parameters(
            request, seed=task.seed, model=self._model.config.model, settings=self._live.provenance
        )
        if request.scheduler is None:
            parameters["scheduler"] = schedulers.name_of(self._model.pipeline.scheduler)
        return encode.encode(image, request.output, parameters)


def _no_previews(model: LoadedModel) -> str:
    """Return why this model sends no previews; an empty text: it sends them."""
    if has_safety_checker(model.pipeline):
        return "this model's safety checker checks only finished images"
    return "" if model.colours else "this model's pipeline provides none"


def _check_sides(request: ImageRequest, cell: int) -> None:
    for name, side in (("width", request.width), ("height", request.height)):
        if side is not None and side % cell:
            raise InvalidRequest(f"{name}: got {side}: must be a multiple of {cell} for this model", name)
