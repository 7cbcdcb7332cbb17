# SPDX-License-Identifier: Apache-2.0
"""Warm-up: generates each size once, so that kernels are chosen, compiled and captured before the first request."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from sd_runtime.config import Batching, LiveConfig, WarmupShape
from sd_runtime.engine import failures
from sd_runtime.engine.acceleration import compile_cache
from sd_runtime.engine.execution.preparing import Failure
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.execution.step_batch_runner import StepBatchRunner
from sd_runtime.engine.image_task import tasks
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.lora.lora_switch import Active
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.engine.sampling.unet_batch import padded_rows
from sd_runtime.errors import ContentWithheld, ModelInvalid, ModelUnavailable
from sd_runtime.observability.observer import Silent
from sd_runtime.startup import Startup

_CPU_SIDE = 256
_UNGUIDED = 1.0
_REQUEST_ID = "warmup"
_STEPS = 2  # the first step of a multi-order scheduler differs from the later ones


class _Shape(NamedTuple):
    width: int
    height: int


def warm_up(model: LoadedModel, startup: Startup) -> None:
    """Generate the configured sizes, or one image if none is configured.

    So every replica has generated an image before it is ready. The phase is `compile` if networks are compiled, since
    compilation takes most of the time; else the phase is `warmup`.

    Raises:
        ModelInvalid: the model cannot generate images.
        ModelUnavailable: a size does not fit into the device's memory.
    """
    fixed = model.tuned.fixed_shapes
    shapes = model.config.warmup or (_trial(model, full_size=fixed),)
    startup.enter("compile" if model.tuned.compiled else "warmup")
    with ExitStack() as warming:
        warming.enter_context(model.device.choosing_kernels())
        for each in model.tuned.compiled:
            warming.enter_context(each.waiting())
        if model.tuned.graphs is not None:
            warming.enter_context(model.tuned.graphs.capturing())
        for shape in shapes:
            for count in _batches(model, Batching().max_batch_size) if fixed else (1,):
                _draw(model, shape, count, model.defaults.guidance)
            if fixed:
                _draw(model, shape, 1, _UNGUIDED)
    if model.tuned.effective["compile"]:
        compile_cache.report()


def prepare(model: LoadedModel, live: LiveConfig) -> None:
    """Compile in the background what new settings need and the start has not compiled.

    New settings can bring larger batches or another size. Each LoRA alone is compiled too.

    Args:
        model: a model that has generated an image.
        live: the new settings.
    """
    if not model.tuned.compiled or model.family is None:
        return
    unet, cell = model.tuned.compiled[0], model.pipeline.vae_scale_factor
    width, height = live.defaults.width or model.defaults.width, live.defaults.height or model.defaults.height
    guided = {model.family.rows(guidance) for guidance in (_UNGUIDED, _guidance(model, live))}
    rows = {
        padded_rows(count * each) for each in guided for count in range(1, live.batching.max_batch_size + 1)
    }
    wanted = [(Active(), count) for count in sorted(rows)]
    wanted += [(alone, padded_rows(max(guided))) for alone in model.loras.singles]  # for batches of one image
    for active, count in wanted:
        inputs = _inputs(unet.example, count, height // cell, width // cell)
        unet.prepare(active, model.device.runner_threads(), *inputs)


def _guidance(model: LoadedModel, live: LiveConfig) -> float:
    return model.defaults.guidance if live.defaults.guidance is None else live.defaults.guidance


def _inputs(example: Any, rows: int, height: int, width: int) -> tuple[Any, ...]:
    """Return inputs of a UNet call like the example's, with other rows and other sides of the latents."""
    samples, timesteps, conditions = example

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:1].expand(rows, *tensor.shape[1:]).contiguous()

    return (
        samples.new_zeros((rows, samples.shape[1], height, width)),
        repeated(timesteps),
        {name: repeated(tensor) for name, tensor in conditions.items()},
    )


def _trial(model: LoadedModel, *, full_size: bool) -> _Shape:
    """Return the size of the one image that every start generates.

    The size is the model's default. On a CPU, where that size can take minutes, the size is at most 256x256.
    """
    defaults = model.defaults
    if full_size or model.device.kind != "cpu" or model.family is None:
        return _Shape(defaults.width, defaults.height)
    return _Shape(min(defaults.width, _CPU_SIDE), min(defaults.height, _CPU_SIDE))


def _batches(model: LoadedModel, most: int) -> tuple[int, ...]:
    """Return one number of images for each padded row count that batches of up to `most` images have.

    The row counts are those with the model's default guidance.
    """
    rows = 1 if model.family is None else model.family.rows(model.defaults.guidance)
    return tuple({padded_rows(count * rows): count for count in range(1, most + 1)}.values())


def _draw(model: LoadedModel, shape: _Shape | WarmupShape, count: int, guidance: float) -> None:
    model.device.enter("drawing")
    drawing_room = runner(model, Silent())
    request = ImageRequest(
        prompt="",
        width=shape.width,
        height=shape.height,
        steps=_STEPS,
        guidance=guidance,
        count=count,
        id=_REQUEST_ID,
    )
    pictures = tasks(request, model.family)
    drawing_room.budget.pictures = count
    pixels = shape.width * shape.height
    rows = sum(task.rows for task in pictures)

    def denoised(peak: int) -> None:
        model.peaks.denoising = max(model.peaks.denoising, peak / (rows * pixels))

    def decoded(peak: int) -> None:
        model.peaks.decoding = max(model.peaks.decoding, peak / pixels)

    _check(model, shape, preparation(model, Silent())(pictures))
    for task in pictures:
        drawing_room.join(task)
    while drawing_room.tasks():
        with model.device.peak(denoised):
            tick = drawing_room.tick()
        _check(model, shape, tick.failed)
    if isinstance(drawing_room, StepBatchRunner):
        model.device.enter("decoding")
        with torch.inference_mode(), model.device.peak(decoded):
            (image,) = Decoder(model.pipeline).decode([pictures[0].trajectory.latents])
        if isinstance(image, Exception) and not isinstance(image, ContentWithheld):
            raise ModelInvalid(
                f"model.uri: got {model.config.model.uri!r}: {failures.reported(image, _REQUEST_ID, quoted=True)}"
            )


def _check(model: LoadedModel, shape: _Shape | WarmupShape, failed: Sequence[Failure]) -> None:
    """Raise for an image that failed; an image withheld by the safety checker counts as generated."""
    for _, error in failed:
        if isinstance(error, ContentWithheld):
            continue
        found = failures.reported(error, _REQUEST_ID, quoted=True)
        kind = ModelUnavailable if failures.out_of_memory(error) else ModelInvalid
        raise kind(
            f"model.uri: got {model.config.model.uri!r}: a {type(model.pipeline).__name__} cannot generate an image of"
            f" {shape.width}x{shape.height}: {found}"
        ) from error
