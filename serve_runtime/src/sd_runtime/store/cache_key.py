# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a seeded request: requests with the same fingerprint generate the same files (pure).

A fingerprint is valid for one release of the runtime and one revision of the weights. A model without a pinned revision
(a folder, a branch) can change without a change of its name. After such a change the service must be restarted.
"""

import hashlib
import json
import re
from dataclasses import asdict

from sd_runtime import __version__
from sd_runtime.config import Provenance, RuntimeConfig
from sd_runtime.engine.interface import ImageRequest

_TAG = re.compile(r'"[^"]*"')  # a tag without W/; it may contain commas
_LENGTH = 32  # 128 bits


def fingerprint(request: ImageRequest, config: RuntimeConfig, provenance: Provenance) -> str:
    """A hash of all inputs that affect the files, including their metadata."""
    inputs = asdict(request)
    del inputs["id"], inputs["output"]["previews"]
    chosen = [lora.model_dump() for lora in config.loras if lora.name in request.loras]
    whole = [__version__, inputs, config.model.model_dump(), chosen, provenance.model_dump()]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def etag(value: str) -> str:
    """The weak entity tag of a fingerprint: the image is the same, but not always byte for byte.

    A strong tag promises equal bytes (RFC 9110, 8.8.1). Rounding depends on the other images of the batch, on the number
    of threads and on the processor of the replica, even in float32.
    """
    return f'W/"{value}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether the header If-None-Match contains the tag, by weak comparison (RFC 9110, 13.1.2)."""
    sent = _TAG.findall(if_none_match)
    return _TAG.findall(tag)[0] in sent or if_none_match.strip() == "*"
