# SPDX-License-Identifier: Apache-2.0
"""The identity of a seeded request: same fingerprint, same files (pure).

It holds for one release of the runtime and one revision of the weights. A model without a pinned revision (a folder, a
branch) can change under its name; whoever does that in place restarts the service.
"""

import hashlib
import json
from dataclasses import asdict

from sd_runtime import __version__
from sd_runtime.config import Provenance, RuntimeConfig
from sd_runtime.engine import ImageRequest

_LENGTH = 32  # 128 bits


def fingerprint(request: ImageRequest, config: RuntimeConfig, provenance: Provenance) -> str:
    """A hash over all that goes into the files, what is told of their making included."""
    asked = asdict(request)
    del asked["id"], asked["output"]["previews"]
    chosen = [lora.model_dump() for lora in config.loras if lora.name in request.loras]
    whole = [__version__, asked, config.model.model_dump(), chosen, provenance.model_dump()]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def etag(value: str) -> str:
    """The strong entity tag of a fingerprint."""
    return f'"{value}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a client that sends this header has the file already (RFC 9110: weak comparison)."""
    held = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in held or held == ["*"]
