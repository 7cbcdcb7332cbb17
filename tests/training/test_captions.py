# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from sd_training.captions import Named, any_named, article, caption, vocabulary
from sd_training.tokenizer import tokenizer


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def test_every_named_part_is_in_the_caption():
    rng = random.Random(1)
    for _ in range(500):
        named = any_named(rng)
        text = caption(named, rng)
        for part in (named.shape, named.colour, named.background):
            assert part is None or part in text or (part == "gray" and "grey" in text), (named, text)
        assert bool(text) == (named != Named()), named


@pytest.mark.parametrize(
    ("text", "wanted"), [("orange star", "an orange star"), ("red star", "a red star")], ids=str
)
def test_article(text, wanted):
    assert article(text) == wanted


def test_every_known_word_is_one_token(words):
    for word in vocabulary():
        assert words.tokenize(word) == [f"{word}</w>"]


def test_case_and_punctuation_do_not_hide_words(words):
    tokens = words.tokenize("A RED Circle, on white")
    assert tokens == ["a</w>", "red</w>", "circle</w>", ",</w>", "on</w>", "white</w>"]


@pytest.mark.parametrize(
    "text", ["", "猫 naïve café 🚀", "\x00\n\t", "redcircle", "circle " * 200], ids=ascii
)
def test_any_text_becomes_77_known_tokens(words, text):
    tokens = words(text, padding="max_length", truncation=True).input_ids
    assert len(tokens) == 77
    assert max(tokens) < len(words)
    assert None not in tokens


def test_unknown_text_is_spelt_in_bytes_and_nothing_is_lost(words):
    assert words.decode(words("naïve 猫").input_ids, skip_special_tokens=True).strip() == "naïve 猫"
