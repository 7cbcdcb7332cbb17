# SPDX-License-Identifier: Apache-2.0
"""Shortens long texts, if possible between sentences, clauses or words (pure)."""

import re

_MARK = "..."
_BOUNDARIES = (re.compile(r"[.!?](?=\s)"), re.compile(r"[,;:](?=\s)"), re.compile(r"\s"))
"""Boundaries at which a text may be cut, the best first: after a sentence, after a clause, between two words."""


def excerpt(text: str, limit: int) -> str:
    """Return the start of a text, at most `limit` bytes of UTF-8. Three dots mark a shortened text.

    The text is cut at a boundary in the second half of the limit. Without such a boundary it is cut at the limit.
    """
    if len(text.encode()) <= limit:
        return text
    room = text.encode()[: limit - len(_MARK) - 1].decode(errors="ignore")
    ends = (_last(boundary, room) for boundary in _BOUNDARIES)
    end = next((each for each in ends if each > len(room) // 2), len(room))
    return f"{room[:end].rstrip(' ,;:')} {_MARK}"


def ending(text: str, limit: int) -> str:
    """Return the end of a text, at most `limit` bytes of UTF-8. It starts with a sentence, a clause or a word."""
    if len(text.encode()) <= limit:
        return text
    room = text.encode()[-(limit - len(_MARK) - 1) :].decode(errors="ignore")
    starts = (boundary.search(room) for boundary in _BOUNDARIES)
    start = next((each.end() for each in starts if each and each.end() < len(room) // 2), 0)
    return f"{_MARK} {room[start:].lstrip()}"


def _last(boundary: re.Pattern[str], text: str) -> int:
    return max((each.end() for each in boundary.finditer(text)), default=0)
