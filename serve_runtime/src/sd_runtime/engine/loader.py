# SPDX-License-Identifier: Apache-2.0
"""Loads the configured pipeline into memory; bundled, local and downloaded folders take the same path."""

import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from sd_runtime import weights
from sd_runtime.config import DType, ModelConfig, RuntimeConfig
from sd_runtime.engine import device, failures, library_warnings
from sd_runtime.engine.acceleration import compile_cache, optimizations, quantizing
from sd_runtime.engine.defaults import own_defaults
from sd_runtime.engine.execution.pipeline_runner import check_call
from sd_runtime.engine.execution.warmup import warm_up
from sd_runtime.engine.lora import lora_switch
from sd_runtime.engine.model import LoadedModel
from sd_runtime.engine.pipelines import components
from sd_runtime.engine.pipelines.families import TEXT_ENCODERS, family_of
from sd_runtime.engine.postprocess import previews
from sd_runtime.engine.postprocess.decode import widen
from sd_runtime.engine.sampling.schedulers import scheduler
from sd_runtime.errors import ConfigError, ModelUnavailable
from sd_runtime.startup import Startup

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def load(config: RuntimeConfig, startup: Startup | None = None) -> LoadedModel:
    """Fetch the weights, build the pipeline on the best available device, tune it and warm it up.

    Args:
        config: the configuration of the model and its LoRAs.
        startup: receives each phase of the start.

    Raises:
        ConfigError: the configuration needs something that the model or the device cannot do.
        ModelUnavailable: the weights cannot be fetched, are not a diffusers pipeline, or a LoRA does not fit them.
    """
    library_warnings.silence()
    startup = startup or Startup()
    startup.enter("weights")
    folder = weights.fetch(config.model)
    startup.fetched(weights.commit(config.model, folder))
    startup.enter("pipeline")
    with library_warnings.collected() as warned:
        model = _loaded(config, folder)
    startup.loaded(warned, model.loras.refused, batching=model.batching)
    warm_up(model, startup)
    failed = [each.failure for each in model.tuned.compiled if each.failure]
    startup.loaded([*failed, *warned], model.loras.refused, batching=model.batching)
    startup.done()
    model.seconds.update(startup.seconds)
    return model


def _loaded(config: RuntimeConfig, folder: Path) -> LoadedModel:
    on = device.Device(device.best())
    on.enter("loading")
    compile_cache.use(config.model, on.kind)
    on.prefer_kernels()
    dtype = _dtype(config.model, on)
    quantizing.check(config.model.quantization, dtype, on)
    pipeline = _pipeline(folder, config.model, _DTYPES[dtype])
    switch = lora_switch.load(pipeline, config.loras)
    pipeline.to(on.kind)
    components.check_finite(f"model.uri: got {config.model.uri!r}", _networks(pipeline))
    family = family_of(pipeline)
    if family is None:
        check_call(pipeline, f"model.uri: got {config.model.uri!r}")
    else:
        widen(pipeline)
    text_switch = switch.of(*TEXT_ENCODERS)
    if family is not None:
        switch = switch.of("unet")
    return LoadedModel(
        pipeline=pipeline,
        config=config,
        family=family,
        # This call precedes the compilation of the decoder, which would otherwise compile for this shape too.
        colours=None if family is None else previews.colours(pipeline),
        device=on,
        dtype=dtype,
        defaults=own_defaults(pipeline, folder),
        loras=switch,
        text_loras=text_switch,
        tuned=optimizations.tune(pipeline, config.optimizations, on, switch, config.model.quantization),
    )


def _dtype(model: ModelConfig, on: device.Device) -> DType:
    """Return the number format of the computation.

    On CPUs the format is float32: half precision is slower there, and many of its operators are missing.
    """
    if on.kind != "cpu":
        return model.dtype or on.half()
    if model.dtype not in {None, "float32"}:
        logger.info("model.dtype %s is ignored: on a CPU the runtime computes in float32", model.dtype)
    return "float32"


def _pipeline(folder: Path, model: ModelConfig, dtype: torch.dtype) -> Any:
    what = f"model.uri: got {model.uri!r}"
    try:
        networks = components.load(what, folder, dtype=dtype, variant=model.variant)
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,  # None would fall back to pickle, which runs code
            trust_remote_code=False,
            local_files_only=True,
            **networks,
        )
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(f"{what}: the folder cannot be loaded: {failures.one_line(error)}") from error
    if model.scheduler is not None:
        if family_of(pipeline) is None:
            raise ConfigError(
                f"model.scheduler: got {model.scheduler!r}: must be absent, since a {type(pipeline).__name__}"
                " has its own scheduler"
            )
        pipeline.scheduler = scheduler(model.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: each for name, each in pipeline.components.items() if isinstance(each, torch.nn.Module)}
