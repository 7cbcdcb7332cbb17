# SPDX-License-Identifier: Apache-2.0
"""Image files with their generation parameters, so that an image can be reproduced and distinguished from a photograph.

Each file contains the parameters twice: as the infotext that galleries read, in PNG's chunk `parameters` or EXIF's
UserComment, and as our JSON, in PNG's chunk `sd-runtime` or EXIF's MakerNote.
"""

import io
import json
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sd_runtime.engine.interface import Output
from sd_runtime.engine.postprocess.infotext import infotext

INFOTEXT = "parameters"
"""The PNG chunk that AUTOMATIC1111 and Civitai read; in files of earlier releases it contains JSON."""
OWN = "sd-runtime"

_EXIF = 0x8769
_USER_COMMENT = 0x9286
_MAKER_NOTE = 0x927C
_UNICODE = b"UNICODE\0"
_MARK = b"sd-runtime\0"
_MOST_EXIF = 60000  # a JPEG segment has 65533 bytes


def encode(image: Image.Image, output: Output, parameters: dict[str, Any]) -> bytes:
    """Encode an image in the requested format, with its parameters in the file."""
    target = io.BytesIO()
    if output.format == "png":
        chunks = PngInfo()
        chunks.add_text(INFOTEXT, infotext(parameters))
        chunks.add_itxt(OWN, _json(parameters))
        # Level 1: a tenth of the time of the default for a few percent of size.
        image.save(target, format="PNG", pnginfo=chunks, compress_level=1)
    else:
        exif = Image.Exif()
        exif.get_ifd(_EXIF).update(_tags(parameters))
        image.save(target, format=output.format.upper(), quality=output.compression, exif=exif)
    return target.getvalue()


def size(data: bytes) -> str:
    """Return WIDTHxHEIGHT of a file, read from its first bytes."""
    width, height = Image.open(io.BytesIO(data)).size
    return f"{width}x{height}"


def parameters(data: bytes) -> dict[str, Any]:
    """Return the parameters in a file that `encode` made, in this release or an earlier one.

    Raises:
        KeyError: the file contains no parameters of ours.
    """
    image = Image.open(io.BytesIO(data))
    texts = image.info if image.format == "PNG" else _exif_texts(image)
    found: dict[str, Any] = json.loads(texts[OWN] if OWN in texts else texts[INFOTEXT])
    return found


def _exif_texts(image: Image.Image) -> dict[str, str]:
    tags = image.getexif().get_ifd(_EXIF)
    note, comment = tags.get(_MAKER_NOTE, b""), tags.get(_USER_COMMENT, b"")
    if note.startswith(_MARK):
        return {OWN: note.removeprefix(_MARK).decode()}
    return {INFOTEXT: comment.removeprefix(_UNICODE).decode("utf-16-le")} if comment else {}


def _tags(parameters: dict[str, Any]) -> dict[int, bytes]:
    """Return the parameters as EXIF tags; without the texts of the prompts if these are too long for EXIF."""
    tags = _both(parameters)
    if sum(map(len, tags.values())) <= _MOST_EXIF:
        return tags
    return _both({name: value for name, value in parameters.items() if not name.endswith("prompt")})


def _both(parameters: dict[str, Any]) -> dict[int, bytes]:
    return {_USER_COMMENT: _comment(parameters), _MAKER_NOTE: _MARK + _json(parameters).encode()}


def _comment(parameters: dict[str, Any]) -> bytes:
    """Return the UserComment in UTF-16, most significant byte first, as the readers of infotext expect it."""
    return _UNICODE + infotext(parameters).encode("utf-16-be")


def _json(parameters: dict[str, Any]) -> str:
    return json.dumps(parameters, ensure_ascii=False)
