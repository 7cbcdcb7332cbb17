# SPDX-License-Identifier: Apache-2.0
"""From a model's configuration to a pipeline in memory; one path for bundled, local and downloaded folders."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from sd_runtime import sources
from sd_runtime.config import ModelConfig
from sd_runtime.diffusion.schedulers import scheduler
from sd_runtime.errors import ModelUnavailable

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_USUAL_STEPS = 25
_USUAL_GUIDANCE = 7.5


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline and what a request gets that does not say.

    Attributes:
        width: the model's own picture size in pixels; likewise `height`.
        seconds: time spent per phase of loading.
    """

    pipeline: Any
    device: str
    dtype: str
    width: int
    height: int
    steps: int
    guidance: float
    seconds: dict[str, float]


def load(model: ModelConfig) -> LoadedModel:
    """Fetch the weights and build the pipeline on the best device there is.

    Raises:
        ConfigError: the source is not supported.
        ModelUnavailable: the weights cannot be had or are no diffusers pipeline.
    """
    began = time.monotonic()
    folder = sources.fetch(model)
    fetched = time.monotonic()
    device = _device()
    # Half precision is slower than single on CPUs, and many of its operators are missing there.
    dtype = "float32" if device == "cpu" else model.dtype
    if dtype != model.dtype:
        logger.info("a CPU computes float32, not %s", model.dtype)
    pipeline = _pipeline(folder, model, _DTYPES[dtype]).to(device)
    side = _own_side(pipeline)
    return LoadedModel(
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        width=side,
        height=side,
        steps=_USUAL_STEPS,
        guidance=_USUAL_GUIDANCE,
        seconds={"weights": fetched - began, "pipeline": time.monotonic() - fetched},
    )


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _pipeline(folder: Path, model: ModelConfig, dtype: torch.dtype) -> Any:
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=model.variant,
            use_safetensors=True,  # None would fall back to pickle, which runs code
            trust_remote_code=False,
            local_files_only=True,
        )
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelUnavailable(f"model.uri: got {model.uri!r}: the folder does not load: {reason}") from error
    if model.scheduler is not None:
        pipeline.scheduler = scheduler(model.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _own_side(pipeline: Any) -> int:
    """Side of the pictures the model was trained on, in pixels."""
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    return int(denoiser.config.sample_size * pipeline.vae_scale_factor)
