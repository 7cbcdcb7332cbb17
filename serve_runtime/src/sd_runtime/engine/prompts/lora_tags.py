# SPDX-License-Identifier: Apache-2.0
"""The tags `<lora:NAME>` and `<lora:NAME:STRENGTH>` in a prompt, as in AUTOMATIC1111 (pure)."""

import re

from sd_runtime.errors import InvalidRequest

MAX_STRENGTH = 4.0

_TAG = re.compile(r"<lora:(?P<parts>[^<>]*)>", re.IGNORECASE)

Tags = list[tuple[str, float | None]]


def found_in(text: str) -> bool:
    """Whether a text contains a tag."""
    return _TAG.search(text) is not None


def taken_out(text: str) -> tuple[str, Tags]:
    """Remove the tags from a text; return the text, and each tag's name with its strength or None.

    Raises:
        InvalidRequest: a tag is not of this form.
    """
    return _TAG.sub("", text), [_read(match["parts"]) for match in _TAG.finditer(text)]


def _read(parts: str) -> tuple[str, float | None]:
    name, *strength = (part.strip() for part in parts.split(":"))
    try:
        numbers = [float(each) for each in strength]
    except ValueError:
        numbers = [float("nan")]
    if not name or len(numbers) > 1 or not all(abs(each) <= MAX_STRENGTH for each in numbers):
        raise InvalidRequest(
            f"prompt: got a tag <lora:{parts[:80]}>: must be <lora:NAME> or <lora:NAME:STRENGTH>,"
            f" with a strength from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}",
            "prompt",
        )
    return name, numbers[0] if numbers else None
