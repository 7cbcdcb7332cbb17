# SPDX-License-Identifier: Apache-2.0
"""The identity of a seeded request: same fingerprint, same files (pure).

It holds for one release of the runtime and one revision of the weights. A model without a pinned revision (a folder, a
branch) can change under its name; whoever does that in place restarts the service.
"""

import hashlib
import json
import re
from dataclasses import asdict

from sd_runtime import __version__
from sd_runtime.config import Provenance, RuntimeConfig
from sd_runtime.engine.interface import ImageRequest

_TAG = re.compile(r'"[^"]*"')  # a tag without W/; commas may be within
_LENGTH = 32  # 128 bits


def fingerprint(request: ImageRequest, config: RuntimeConfig, provenance: Provenance) -> str:
    """A hash over all that goes into the files, what is told of their making included."""
    asked = asdict(request)
    del asked["id"], asked["output"]["previews"]
    chosen = [lora.model_dump() for lora in config.loras if lora.name in request.loras]
    whole = [__version__, asked, config.model.model_dump(), chosen, provenance.model_dump()]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def etag(value: str) -> str:
    """The entity tag of a fingerprint, a weak one: the file is the same picture, and not always the same bytes.

    A strong tag promises bytes (RFC 9110, 8.8.1). Rounding depends on what is computed beside a picture, on the number of
    threads and on the processor of the replica, in float32 as well.
    """
    return f'W/"{value}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a client that sends this header has the picture already (RFC 9110, 13.1.2: weak comparison)."""
    held = _TAG.findall(if_none_match)
    return _TAG.findall(tag)[0] in held or if_none_match.strip() == "*"
