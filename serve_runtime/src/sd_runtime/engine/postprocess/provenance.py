# SPDX-License-Identifier: Apache-2.0
"""The generation parameters that an image file contains."""

import hashlib
from typing import Any

from sd_runtime.config import ModelConfig, Provenance
from sd_runtime.engine.interface import ImageRequest


def parameters(
    request: ImageRequest, *, seed: int, model: ModelConfig, settings: Provenance
) -> dict[str, Any]:
    """Return all parameters that reproduce the image: hashes of the prompts, and their texts if the settings allow it.

    Args:
        request: the request, with every default filled in.
        seed: the seed of this image.
        model: the model that generated it.
        settings: which parameters may be published.
    """
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    hashes = {f"{name}_sha256": _sha256(text) for name, text in texts.items()}
    return {
        **(texts if settings.prompt else {}),
        **hashes,
        "seed": seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "width": request.width,
        "height": request.height,
        "scheduler": request.scheduler,
        **request.schedule._asdict(),
        "guidance_rescale": request.guidance_rescale,
        "clip_skip": request.clip_skip,
        "loras": list(request.loras),
        "lora_strengths": dict(request.lora_strengths),
        "prompt_syntax": request.prompt_syntax,
        "model": model.uri,
        "revision": model.revision,
        **({"quantization": model.quantization} if model.quantization else {}),
        # Caches may answer later requests with the file of a seeded request; a request id would then be the wrong one.
        **({} if request.seeded else {"request_id": request.id}),
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
