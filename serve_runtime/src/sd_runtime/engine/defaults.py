# SPDX-License-Identifier: Apache-2.0
"""Default size, steps and guidance of a model, for requests that leave these fields out.

The values come from the model's folder. Without them there, they come from the pipeline's signature and configuration.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_runtime.engine.model import OwnDefaults
from sd_runtime.engine.pipelines.families import family_of
from sd_runtime.errors import ModelInvalid

_OWN_SETTINGS = "generation_config.json"
# Half the default of Stable Diffusion's pipelines: with the offered schedulers, more steps are not visible.
_FAMILY_STEPS = 25
_STEPS, _GUIDANCE = 50, 7.5  # for a pipeline without defaults of its own
_UNET_SIDE, _TRANSFORMER_SIDE = 512, 1024


def own_defaults(pipeline: Any, folder: Path) -> OwnDefaults:
    """Return the default size, steps and guidance of a model.

    Args:
        pipeline: the loaded pipeline.
        folder: the model's folder. Its generation_config.json may set `num_inference_steps` and `guidance_scale`.

    Raises:
        ModelInvalid: generation_config.json is not a JSON object of numbers.
    """
    file = folder / _OWN_SETTINGS
    says = signature_defaults(pipeline)
    steps = _FAMILY_STEPS if family_of(pipeline) else says.get("num_inference_steps") or _STEPS
    height, width = _size(pipeline, says)
    try:
        settings = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        return OwnDefaults(
            width=width,
            height=height,
            steps=int(settings.get("num_inference_steps", steps)),
            guidance=float(settings.get("guidance_scale", says.get("guidance_scale") or _GUIDANCE)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelInvalid(f"{file}: must be a JSON object of numbers: {error}") from error


def signature_defaults(pipeline: Any) -> Mapping[str, Any]:
    """Return the parameters of a pipeline's `__call__` that have a default, with that default."""
    parameters = inspect.signature(type(pipeline).__call__).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def side_multiple(pipeline: Any) -> int:
    """Return the number of pixels that both sides of an image must be a multiple of.

    For FLUX the number is twice as large, since FLUX packs two latent cells into one.
    """
    processor = getattr(pipeline, "image_processor", None)
    whole = getattr(pipeline, "vae_scale_factor", 8)
    return int(getattr(getattr(processor, "config", None), "vae_scale_factor", whole))


def _size(pipeline: Any, says: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width in pixels.

    The sources, in this order: the signature, the pipeline, its network, the usual size for this network type.
    """
    height, width = says.get("height"), says.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    unet = getattr(pipeline, "unet", None)
    network = unet if unet is not None else getattr(pipeline, "transformer", None)
    cells = getattr(pipeline, "default_sample_size", None) or getattr(
        getattr(network, "config", None), "sample_size", None
    )
    if cells is None:
        side = _TRANSFORMER_SIDE if unet is None else _UNET_SIDE
        return side, side
    factor = getattr(pipeline, "vae_scale_factor", 8)
    rows, columns = (cells, cells) if isinstance(cells, int) else (int(cells[0]), int(cells[-1]))
    return int(rows * factor), int(columns * factor)
