# SPDX-License-Identifier: Apache-2.0
r"""Parser of prompts into sections of weighted fragments (pure).

`plain` takes every character literally. `weighted` reads the syntax of AUTOMATIC1111
(`modules/prompt_parser.py`, `parse_prompt_attention`):

    (word:1.3)      weight 1.3
    (word)          weight 1.1, ((word)) 1.1 x 1.1
    [word]          weight 1 / 1.1
    \( \[ \\          the character itself
    BREAK           the next word starts a new chunk of the text encoder

Brackets nest, and their weights multiply. An opening bracket without a closing one acts to the end of the prompt.
"""

import math
import re
from typing import NamedTuple

from sd_runtime.config import PromptSyntax
from sd_runtime.errors import InvalidRequest

MAX_WEIGHT = 10.0
"""The largest weight of a fragment; its negative is the smallest. Half precision overflows only far beyond it."""

_ROUND, _SQUARE = 1.1, 1 / 1.1
_PART = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_WEIGHTS = re.compile(r"\([^()]*:\s*[+-]?[.\d]+\s*\)|\(\([^()]*\)\)|\bBREAK\b")


class Fragment(NamedTuple):
    """Text, and the weight of all its tokens; 1 leaves them as they are."""

    text: str
    weight: float = 1.0


Section = tuple[Fragment, ...]
"""The fragments between two BREAKs."""


def parse(name: str, text: str, syntax: PromptSyntax) -> tuple[Section, ...]:
    """Parse a prompt into sections, at least one; fragments keep the spaces between words.

    Args:
        name: the field that contains the text, for the message.
        text: the prompt.
        syntax: the prompt syntax.

    Raises:
        InvalidRequest: a weight is not a number, or outside the range of MAX_WEIGHT.
    """
    if syntax == "plain":
        return ((Fragment(text),),)
    sections = _Reader(name).read(text)
    for fragment in (each for section in sections for each in section):
        if not abs(fragment.weight) <= MAX_WEIGHT:
            raise _refused(name, f"{fragment.weight:.3g}")
    return sections


def has_weights(text: str) -> bool:
    """Whether a text contains syntax that only `weighted` reads."""
    return _WEIGHTS.search(text) is not None


class _Reader:
    """The state of the parser: the fragments so far, and the positions of the open brackets."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fragments: list[Fragment | None] = []  # None: BREAK
        self._round: list[int] = []
        self._square: list[int] = []

    def read(self, text: str) -> tuple[Section, ...]:
        for match in _PART.finditer(text):
            self._take(match.group(), match["weight"])
        for start in self._round:
            self._multiply(start, _ROUND)
        for start in self._square:
            self._multiply(start, _SQUARE)
        return self._sections()

    def _take(self, part: str, weight: str | None) -> None:
        if part.startswith("\\"):
            self._fragments.append(Fragment(part[1:]))
        elif part == "(":
            self._round.append(len(self._fragments))
        elif part == "[":
            self._square.append(len(self._fragments))
        elif weight is not None and self._round:
            self._multiply(self._round.pop(), self._number(weight))
        elif part == ")" and self._round:
            self._multiply(self._round.pop(), _ROUND)
        elif part == "]" and self._square:
            self._multiply(self._square.pop(), _SQUARE)
        else:
            self._take_text(part)

    def _take_text(self, text: str) -> None:
        first, *rest = _BREAK.split(text)
        self._fragments.append(Fragment(first))
        for part in rest:
            self._fragments += [None, Fragment(part)]

    def _multiply(self, start: int, factor: float) -> None:
        self._fragments[start:] = [
            each and each._replace(weight=each.weight * factor) for each in self._fragments[start:]
        ]

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise _refused(self._name, text) from None
        if not math.isfinite(number):
            raise _refused(self._name, text)
        return number

    def _sections(self) -> tuple[Section, ...]:
        """Return the sections; adjacent fragments of equal weight are joined, because a word may span their border."""
        sections: list[list[Fragment]] = [[]]
        for each in self._fragments:
            if each is None:
                sections.append([])
            elif sections[-1] and sections[-1][-1].weight == each.weight:
                sections[-1][-1] = Fragment(sections[-1][-1].text + each.text, each.weight)
            else:
                sections[-1].append(each)
        return tuple(tuple(each for each in section if each.text) for section in sections)


def _refused(name: str, weight: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: got a weight of {weight[:20]}: must be a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
        name,
    )
