# SPDX-License-Identifier: Apache-2.0
"""A CLIP tokenizer for the words of the captions; any other text falls back to its bytes."""

from transformers import CLIPTokenizer

from sd_training.captions import vocabulary

_WORD_END = "</w>"
_LENGTH = 77  # as CLIP's


def tokenizer() -> CLIPTokenizer:
    """The tokenizer: a token per byte, each also as the end of a word, and one per known word.

    Words are merged from their right end: each merge then holds the end of a word, and none can take letters
    from another word's middle.
    """
    letters = _byte_letters()
    tokens = letters + [letter + _WORD_END for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in vocabulary():
        right = word[-1] + _WORD_END
        for letter in reversed(word[:-1]):
            if (letter, right) not in merges:
                merges.append((letter, right))
                tokens.append(letter + right)
            right = letter + right
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        model_max_length=_LENGTH,
    )


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each of the 256 bytes: printable ones stand for themselves."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
