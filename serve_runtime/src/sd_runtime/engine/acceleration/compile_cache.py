# SPDX-License-Identifier: Apache-2.0
"""The compile cache: keeps compiled code beside the weights, so that a second start on the same volume compiles nothing.

Torch's own cache looks up each graph by its operators, its shapes and torch's version. Each device, model and release
has its own folder. So the caches of different services stay apart, and an administrator can delete one of them.
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
"""Environment variable with the folder of all compiled code.

Without the variable, torch uses its own folder, which is lost with the pod.
"""


def use(model: ModelConfig, kind: str) -> Path | None:
    """Set the folder in which torch keeps its compiled code for this model and device type.

    The call must come before the first compilation.

    Returns:
        The folder; None where the environment variable is not set.
    """
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


def report() -> None:
    """Log how many graphs were compiled, and how many were found in the cache."""
    counted = torch._dynamo.utils.counters["inductor"]  # noqa: SLF001 - torch's own guide reads these counters
    logger.info(
        "%d graphs were compiled, %d were found in the compile cache",
        counted["fxgraph_cache_miss"],
        counted["fxgraph_cache_hit"],
    )
