# SPDX-License-Identifier: Apache-2.0
import torch

from sd_runtime.diffusion.prompts import Prompts
from sd_runtime.observer import Silent


class Family:
    """Remembers what it encodes."""

    def __init__(self):
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return [{"encoder_hidden_states": torch.full((1, 2), float(len(text)))} for text in texts]


def cache(kept=3):
    family = Family()
    return family, Prompts(family, Silent(), kept)


def test_new_texts_go_in_one_call_and_known_ones_in_none():
    family, prompts = cache()
    found = prompts.encode(["a", "bb", "a"], ())
    assert {text: row["encoder_hidden_states"].tolist() for text, row in found.items()} == {
        "a": [[1, 1]],
        "bb": [[2, 2]],
    }
    prompts.encode(["bb", "ccc"], ())
    assert family.calls == [["a", "bb"], ["ccc"]]


def test_loras_have_encodings_of_their_own():
    family, prompts = cache()
    prompts.encode(["a"], ())
    prompts.encode(["a"], ("ink",))
    assert family.calls == [["a"], ["a"]]


def test_the_longest_unused_is_forgotten():
    family, prompts = cache(kept=2)
    prompts.encode(["a", "b"], ())
    prompts.encode(["a"], ())
    prompts.encode(["c"], ())
    assert len(prompts) == 2
    prompts.encode(["a"], ())
    prompts.encode(["b"], ())
    assert family.calls == [["a", "b"], ["c"], ["b"]]


def test_one_call_may_want_more_than_is_kept():
    _, prompts = cache(kept=1)
    assert set(prompts.encode(["a", "b", "c"], ())) == {"a", "b", "c"}
    assert len(prompts) == 1
