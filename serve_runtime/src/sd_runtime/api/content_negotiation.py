# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the Accept header: an image file or JSON (pure; RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from sd_runtime.api.errors import Unavailable
from sd_runtime.engine.interface import FileFormat

JSON = "application/json"
_FORMATS: dict[str, FileFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
PICTURES = tuple(_FORMATS)
_SHOWN = 80


def check(accept: str, offers: Sequence[str]) -> None:
    """Reject an Accept header that allows none of the offers. A request without the header accepts everything.

    Raises:
        Unavailable: 406.
    """
    if accept.strip() and not any(_weight(accept, each) for each in offers):
        message = f"Accept: got {accept[:_SHOWN]!a}: must accept one of {', '.join(offers)}"
        raise Unavailable(406, message)


def prefers_picture(accept: str) -> bool:
    """Whether the client prefers an image file. A client that accepts everything gets JSON."""
    best = _best(accept)
    return best in _FORMATS or best == "image/*"


def picture_format(accept: str) -> FileFormat | None:
    """The image format that the client prefers; None if it names none."""
    return _FORMATS.get(_best(accept))


def _best(accept: str) -> str:
    """The media type with the highest weight among those we offer; the first one if several are equal."""
    known = {*_FORMATS, JSON, "image/*", "application/*", "*/*", ""}
    ranges = [each for each in _ranges(accept) if each[1] in known]
    weight, media = max(ranges, key=lambda pair: pair[0], default=(0.0, ""))
    return media if weight > 0 else ""


def _weight(accept: str, offer: str) -> float:
    """The weight of a media type, from the most specific media range that matches it."""
    ranges = {media: weight for weight, media in _ranges(accept)}
    for media in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if media in ranges:
            return ranges[media]
    return 0.0


def _ranges(accept: str) -> list[tuple[float, str]]:
    return [_weighed(each) for each in accept.lower().split(",")]


def _weighed(media_range: str) -> tuple[float, str]:
    media, *parameters = (part.strip() for part in media_range.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return _quality(value.strip()), media
    return 1.0, media


def _quality(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
