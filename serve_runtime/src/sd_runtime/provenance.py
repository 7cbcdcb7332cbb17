# SPDX-License-Identifier: Apache-2.0
"""What a picture file says of its making."""

import hashlib
from typing import Any

from sd_runtime.config import ModelConfig, Provenance
from sd_runtime.engine import ImageRequest


def parameters(
    request: ImageRequest, *, seed: int, model: ModelConfig, settings: Provenance
) -> dict[str, Any]:
    """All that makes the picture again, with the prompts as hashes unless the settings allow their words.

    Args:
        request: with every default filled in.
        seed: of this picture.
        model: what drew it.
        settings: what may be told.
    """
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    told = texts if settings.prompt else {f"{name}_sha256": _sha256(text) for name, text in texts.items()}
    return {
        **told,
        "seed": seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "width": request.width,
        "height": request.height,
        "scheduler": request.scheduler,
        "loras": list(request.loras),
        "model": model.uri,
        "revision": model.revision,
        "request_id": request.id,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
