# SPDX-License-Identifier: Apache-2.0
"""The runner for pipelines of unknown families: each image is one call of the pipeline's own `__call__`.

The runner generates one image at a time, the oldest first.
"""

import inspect
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers import CLIPTextModel

from sd_runtime.engine import failures, schedule_options
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.batcher import BatchLimits
from sd_runtime.engine.execution.step_batch_runner import Tick
from sd_runtime.engine.execution.step_timer import StepTimer
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.errors import ContentWithheld, GenerationFailed, InvalidRequest, ModelInvalid
from sd_runtime.observability.observer import Observer

_SENT = {"prompt", "width", "height", "num_inference_steps", "guidance_scale", "negative_prompt"}


class _Unwanted(Exception):
    """The client no longer waits for the image; raised inside the call, it stops the call and keeps the pipeline usable."""


class PipelineRunner:
    """The runner for pipelines without a known family; one tick generates a whole image.

    Attributes:
        on_step: called after each step within a tick.
    """

    def __init__(self, pipeline: Any, loras: LoraSwitch, device: Device, observer: Observer) -> None:
        self.budget = BatchLimits(1, 1)
        self.on_step: Callable[[ImageTask], None] = lambda _: None
        self._pipeline = pipeline
        self._loras = loras
        self._device = device
        self._observer = observer
        self._waiting: list[ImageTask] = []
        self._drawing = False

    def join(self, task: ImageTask) -> None:
        """Add an image task, which waits for all earlier ones."""
        self._waiting.append(task)

    def tasks(self) -> Sequence[ImageTask]:
        """Return the image tasks that have not started."""
        return self._waiting

    def ahead(self, task: ImageTask) -> int:
        """Return how many images come before this one, including the image that is being generated."""
        return self._waiting.index(task) + self._drawing if task in self._waiting else 0

    def tick(self) -> Tick:
        """Generate the oldest image that is not cancelled."""
        done = Tick(cancelled=[task for task in self._waiting if task.cancelled])
        self._waiting = [task for task in self._waiting if not task.cancelled]
        if self._waiting:
            self._drawing = True
            self._draw(self._waiting.pop(0), done)
            self._drawing = False
        return done

    def _draw(self, task: ImageTask, done: Tick) -> None:
        began = time.monotonic()
        self._observer.phase("queue", began - task.since)
        try:
            self._loras.activate(*task.kind.active_loras)
            with torch.inference_mode():
                task.image = self._call(task)
        except _Unwanted:
            done.cancelled.append(task)
        except Exception as error:  # noqa: BLE001 - this image fails, and the runner continues with the next
            if failures.out_of_memory(error):
                error = error.with_traceback(None)
                failures.free_memory()
            done.failed.append((task, _refusal(error) or error))
        else:
            self._observer.phase("denoise", time.monotonic() - began)
            done.finished.append(task)

    def _call(self, task: ImageTask) -> Image.Image:
        task.begun, task.steps = True, task.request.steps or 1
        self.on_step(task)
        timer = StepTimer(self._device, partial(self._observer.step, 1))

        def after_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if task.cancelled:
                raise _Unwanted
            timer.end_step()
            task.step = min(step + 1, task.steps)
            self.on_step(task)
            return tensors

        takes_callback = "callback_on_step_end" in _offered(self._pipeline)
        with timer.watching(self._pipeline):
            result = self._pipeline(
                **arguments(self._pipeline, task.request),
                generator=torch.Generator("cpu").manual_seed(task.seed),
                output_type="pt",
                **({"callback_on_step_end": after_step} if takes_callback else {}),
            )
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise ContentWithheld.image(task.index, task.request.count)
        return _image(result.images[0], task.request)


def check_call(pipeline: Any, what: str) -> None:
    """Raise ModelInvalid if a pipeline's call requires an input that no request has, such as an image.

    Args:
        pipeline: a pipeline without a known family.
        what: the field and its value, for the message.
    """
    kind = type(pipeline)
    parameters = [each for each in _offered(pipeline).values() if each.name != "self"]
    wanted = [
        each.name
        for each in parameters
        if each.default is inspect.Parameter.empty
        and each.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        and each.name not in _SENT
    ]
    purpose = _other_task(kind)
    if not (wanted or purpose):
        return
    reason = f"it needs {', '.join(wanted)}" if wanted else f"it is for {purpose}"
    raise ModelInvalid(
        f"{what}: a {kind.__name__} cannot generate from a prompt alone: {reason}; use a text-to-image model"
    )


def _other_task(kind: type[Any]) -> str:
    """Return the purpose of a pipeline by diffusers' own lists; empty for text-to-image or an unlisted one."""
    from diffusers.pipelines import auto_pipeline  # noqa: PLC0415 - this import loads all pipelines, which takes seconds

    if kind in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values():
        return ""
    purposes = {
        "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    }
    return next((name for name, kinds in purposes.items() if kind in kinds.values()), "")


def _refusal(error: Exception) -> InvalidRequest | None:
    """Return the error of the pipeline's own argument check, for the client; None for any other error."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and any(frame.name == "check_inputs" for frame in frames):
        return InvalidRequest(f"the model's pipeline rejects the request: {failures.one_line(error)}")
    return None


def arguments(pipeline: Any, request: ImageRequest) -> dict[str, Any]:
    """Return the arguments of the pipeline's call for a request.

    Raises:
        InvalidRequest: the pipeline does not support a field of the request.
    """
    offered = _offered(pipeline)
    if request.scheduler is not None:
        raise InvalidRequest(
            f"scheduler: got {request.scheduler!r}: must be absent, since a {type(pipeline).__name__} has its own",
            "scheduler",
        )
    if request.prompt_syntax != "plain":
        raise InvalidRequest(
            f"prompt_syntax: got {request.prompt_syntax!r}: must be 'plain' with a {type(pipeline).__name__}",
            "prompt_syntax",
        )
    schedule_options.check(f"of a {type(pipeline).__name__}", (), request.schedule)
    if request.negative_prompt and "negative_prompt" not in offered:
        raise InvalidRequest(
            f"negative_prompt: got {len(request.negative_prompt)} characters: must be absent, since a"
            f" {type(pipeline).__name__} does not support it",
            "negative_prompt",
        )
    return _optional(pipeline, request) | {
        "prompt": request.prompt,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.steps,
        **({"guidance_scale": request.guidance} if "guidance_scale" in offered else {}),
        **({"negative_prompt": request.negative_prompt} if request.negative_prompt else {}),
    }


def _optional(pipeline: Any, request: ImageRequest) -> dict[str, Any]:
    """Return the arguments that only a few pipelines take, if the request sets them."""
    wanted = {"guidance_rescale": request.guidance_rescale or None, "clip_skip": request.clip_skip}
    given = {name: value for name, value in wanted.items() if value is not None}
    for name, value in given.items():
        if name not in _offered(pipeline) or (name == "clip_skip" and not _skips_layers(pipeline)):
            raise InvalidRequest(
                f"{name}: got {value}: a {type(pipeline).__name__} does not support it", name
            )
    return given


def _skips_layers(pipeline: Any) -> bool:
    """Whether the pipeline supports `clip_skip`.

    With a single CLIP encoder, diffusers 0.42 expects the encoder's norm at a place where transformers 5 no longer has
    it, and fails.
    """
    encoder = getattr(pipeline, "text_encoder", None)
    alone = getattr(pipeline, "text_encoder_2", None) is None
    return not (alone and isinstance(encoder, CLIPTextModel) and not hasattr(encoder, "text_model"))


def guided(pipeline: Any, request: ImageRequest) -> bool:
    """Whether the pipeline's call computes a negative prompt for this request.

    Guidance-distilled models take the guidance scale as an input. Their negative prompt depends on `true_cfg_scale`,
    which keeps its default here.
    """
    offered = _offered(pipeline)
    if "true_cfg_scale" in offered:
        return bool(offered["true_cfg_scale"].default > 1)
    return "guidance_scale" not in offered or (request.guidance or 0.0) > 1


def _offered(pipeline: Any) -> Mapping[str, Any]:
    """Return the parameters of the pipeline's call."""
    return inspect.signature(type(pipeline).__call__).parameters


def _image(pixels: torch.Tensor, request: ImageRequest) -> Image.Image:
    if pixels.shape[-2:] != (request.height, request.width):
        height, width = pixels.shape[-2:]
        raise InvalidRequest(
            f"size: got {request.width}x{request.height}: the model's pipeline generates {width}x{height} instead",
            "size",
        )
    if not pixels.isfinite().all():
        raise GenerationFailed(failures.NOT_A_NUMBER)
    shades = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(shades.permute(1, 2, 0).cpu().numpy())
