# SPDX-License-Identifier: Apache-2.0
"""Compiled code kept beside the weights, so that the second start on the same volume compiles nothing.

Torch's own cache looks up each graph by its operators, its shapes and torch's version. A folder for each device, model
and release keeps the caches of different services apart, and lets an administrator delete one.
https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_configuration_tutorial.html
"""

import logging
import os
import platform
import re
from pathlib import Path

import diffusers
import torch

from sd_runtime.config import ModelConfig

logger = logging.getLogger(__name__)

VARIABLE = "SDSERVICE_COMPILE_CACHE"
"""Environment variable with the folder of all compiled code; without it torch's own, which is gone with the pod."""


def use(model: ModelConfig, kind: str) -> Path | None:
    """Have torch keep what it compiles for the model on a device of this kind; before the first compilation."""
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    device = torch.cuda.get_device_name() if kind == "cuda" else f"{kind}-{platform.machine()}"
    weights = (model.quantization,) if model.quantization else ()
    name = model.uri.partition("://")[2]
    source = f"{name}@{model.revision}" if model.revision else name
    parts = (device, f"torch-{torch.__version__}", f"diffusers-{diffusers.__version__}", source, *weights)
    folder = Path(root, *(re.sub(r"[^A-Za-z0-9._@+-]+", "-", part).strip("-.") for part in parts))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    return folder


def tell() -> None:
    """Log how much had to be compiled, and how much was found."""
    counted = torch._dynamo.utils.counters["inductor"]  # noqa: SLF001 - what torch's own guide reads
    logger.info(
        "compiled %d graphs, found %d in the cache",
        counted["fxgraph_cache_miss"],
        counted["fxgraph_cache_hit"],
    )
