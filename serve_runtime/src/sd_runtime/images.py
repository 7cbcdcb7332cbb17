# SPDX-License-Identifier: Apache-2.0
"""Picture files that say how they were made, so that they can be made again and told from photographs."""

import io
import json
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_runtime.engine import Output

PARAMETERS = "parameters"
_USER_COMMENT = 0x9286
_EXIF = 0x8769
_UNICODE = b"UNICODE\0"
_MOST_EXIF = 60000  # a JPEG segment has 65533 bytes


def encode(image: Image.Image, output: Output, parameters: dict[str, Any]) -> bytes:
    """A file of the wanted format; the parameters go in as JSON: a text chunk of PNG, else EXIF's UserComment."""
    target = io.BytesIO()
    if output.format == "png":
        chunk = PngInfo()
        chunk.add_itxt(PARAMETERS, json.dumps(parameters, ensure_ascii=False))
        # Level 1: a tenth of the time of the default for a few percent of size.
        image.save(target, format="PNG", pnginfo=chunk, compress_level=1)
    else:
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[_USER_COMMENT] = _comment(parameters)
        image.save(target, format=output.format.upper(), quality=output.compression, exif=exif)
    return target.getvalue()


def size(data: bytes) -> str:
    """WIDTHxHEIGHT of a file, read from its first bytes."""
    width, height = Image.open(io.BytesIO(data)).size
    return f"{width}x{height}"


def parameters(data: bytes) -> dict[str, Any]:
    """The parameters in a file that `encode` made."""
    image = Image.open(io.BytesIO(data))
    text = image.info.get(PARAMETERS)
    if text is None:
        comment: bytes = image.getexif().get_ifd(_EXIF)[_USER_COMMENT]
        text = comment.removeprefix(_UNICODE).decode("utf-16-le")
    found: dict[str, Any] = json.loads(text)
    return found


def _comment(parameters: dict[str, Any]) -> bytes:
    """The parameters as EXIF has them; without the prompts' words if these are too long for it."""
    comment = _UNICODE + json.dumps(parameters, ensure_ascii=False).encode("utf-16-le")
    if len(comment) <= _MOST_EXIF:
        return comment
    short = {name: value for name, value in parameters.items() if not name.endswith("prompt")}
    return _UNICODE + json.dumps(short, ensure_ascii=False).encode("utf-16-le")
