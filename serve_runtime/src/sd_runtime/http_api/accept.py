# SPDX-License-Identifier: Apache-2.0
"""What an Accept header prefers: a picture file or JSON (pure)."""

from sd_runtime.engine import FileFormat

_FORMATS: dict[str, FileFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


def prefers_picture(accept: str) -> bool:
    """Whether a picture is wanted before anything else; whoever takes anything gets JSON."""
    best = _best(accept)
    return best in _FORMATS or best == "image/*"


def picture_format(accept: str) -> FileFormat | None:
    """The format that is named; None: any."""
    return _FORMATS.get(_best(accept))


def _best(accept: str) -> str:
    """The media type of highest weight, the first one of equals."""
    ranges = [_weighed(each) for each in accept.lower().split(",")]
    weight, media = max(ranges, key=lambda pair: pair[0])
    return media if weight > 0 else ""


def _weighed(media_range: str) -> tuple[float, str]:
    media, *parameters = (part.strip() for part in media_range.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value), media
            except ValueError:
                return 0.0, media
    return 1.0, media
