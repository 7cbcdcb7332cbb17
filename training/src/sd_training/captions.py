# SPDX-License-Identifier: Apache-2.0
"""What people call a picture: captions in many wordings, any part of which may go unnamed."""

import random
import string
from dataclasses import asdict, dataclass

from sd_training.shapes import BACKGROUNDS, COLOURS, KINDS, OUTLINES, Kind

_OPENINGS = ["a photo of", "a picture of", "a drawing of", "an image of", "a painting of", "an icon of"]
_ENDINGS = ["high quality", "simple", "flat design", "centered", "minimal", "vector art"]
_SYNONYMS = {
    "gray": ["gray", "gray", "grey"],
    "small": ["small", "small", "tiny", "little"],
    "large": ["large", "large", "big", "huge"],
}
_FILLERS = [
    "a",
    "an",
    "the",
    "shape",
    "on",
    "in",
    "with",
    "front",
    "of",
    "background",
    "that",
    "is",
    "colored",
    "something",
    "no",
    "not",
    "and",
]


# Tips and lobes are learned last.
_HARD = {"star": 2.0, "heart": 1.5}
_WEIGHTS = [_HARD.get(kind.shape, 1.0) for kind in KINDS]


@dataclass(frozen=True)
class Named:
    """What a caption says; None, or "" as size: it does not say."""

    shape: str | None = None
    colour: str | None = None
    background: str | None = None
    size: str = ""


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted; other words are spelt in bytes by the tokenizer."""
    phrases = " ".join([*_OPENINGS, *_ENDINGS])
    synonyms = [word for words in _SYNONYMS.values() for word in words]
    return sorted({*phrases.split(), *synonyms, *_FILLERS, *OUTLINES, *COLOURS, *BACKGROUNDS})


def any_named(rng: random.Random) -> Named:
    """Some of the parts of a random kind, most often all but the size; one in ten says nothing."""
    if rng.random() < 0.1:  # what guidance compares with
        return Named()
    (kind,) = rng.choices(KINDS, _WEIGHTS)
    size = rng.choice(["small", "large"]) if rng.random() < 0.3 else ""
    return Named(
        shape=kind.shape if rng.random() < 0.95 else None,
        colour=kind.colour if rng.random() < 0.92 else None,
        background=kind.background if rng.random() < 0.72 else None,
        size=size,
    )


def caption(named: Named, rng: random.Random) -> str:
    """One wording of what is named; "" if nothing is."""
    subject, background = _subject(named, rng), _synonym(named.background, rng)
    text = _joined(subject, background, rng)
    if subject and rng.random() < 0.25:
        text = f"{rng.choice(_OPENINGS)} {text}"
    if text and rng.random() < 0.1:
        text = f"{text}, {rng.choice(_ENDINGS)}"
    return _with_noise(text, rng) if text else ""


def article(text: str) -> str:
    """The text behind "a" or "an"."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def prompt(kind: Kind, wording: str = "{a_colour} {shape} on a {background} background") -> str:
    """A prompt that names a kind."""
    return wording.format(a_colour=article(kind.colour), **asdict(kind))


def _synonym(word: str | None, rng: random.Random) -> str:
    return rng.choice(_SYNONYMS.get(word, [word])) if word else ""


def _subject(named: Named, rng: random.Random) -> str:
    """The shape with size and colour, as "a large red circle" or "a large circle in red"."""
    shape = named.shape or ("shape" if named.colour or named.size else "")
    if not shape:
        return ""
    size, colour = _synonym(named.size, rng), named.colour or ""
    if colour and rng.random() < 0.15:
        after = rng.choice(["in", "that is", "colored"])
        return article(f"{size} {shape} {after} {colour}".strip())
    words = " ".join(word for word in (size, colour, shape) if word)
    return rng.choice([article(words), article(words), f"the {words}", words])


def _joined(subject: str, background: str, rng: random.Random) -> str:
    if not background:
        return subject
    if not subject:
        return article(f"{background} background")
    return rng.choice(
        [
            *[f"{subject} on {article(background)} background"] * 6,
            f"{subject} on {background}",
            f"{subject} on {background} background",
            f"{subject} with {article(background)} background",
            f"{subject} in front of {article(background)} background",
            f"{subject}, {background} background",
            f"{article(background)} background with {subject}",
            f"on {article(background)} background, {subject}",
        ]
    )


def _with_noise(text: str, rng: random.Random) -> str:
    """Now and then words that mean nothing here, so that unknown ones do no harm."""
    if rng.random() < 0.08:
        text = f"{_unknown(rng)} {text}"
    if rng.random() < 0.08:
        text = f"{text}{rng.choice([' ', ', '])}{_unknown(rng)}"
    if rng.random() < 0.08:
        words = text.split(" ")
        words.insert(rng.randrange(len(words)), _unknown(rng))
        text = " ".join(words)
    return text


def _unknown(rng: random.Random) -> str:
    letters = string.ascii_lowercase + (string.digits if rng.random() < 0.2 else "")
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 9)))
