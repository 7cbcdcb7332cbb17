# SPDX-License-Identifier: Apache-2.0
import torch

from sd_runtime.diffusion.prompt_chunks import Chunk, PromptChunks
from sd_runtime.diffusion.prompts import Prompts
from sd_runtime.observer import Silent


def prompt(number, chunks=1):
    """A prompt of one token, over and over."""
    return PromptChunks(((Chunk((number,), 1),) * chunks,))


A, B, C = prompt(1), prompt(2), prompt(3)


class Family:
    """Remembers what it encodes."""

    def __init__(self):
        self.calls = []

    def encode(self, prompts):
        self.calls.append(list(prompts))
        return [{"encoder_hidden_states": torch.tensor(each.encoders[0][0].ids)} for each in prompts]


def cache(kept=3):
    family = Family()
    return family, Prompts(family, Silent(), kept)


def test_new_prompts_go_in_one_call_and_known_ones_in_none():
    family, prompts = cache()
    found = prompts.encode([A, B, A], ())
    assert {each: row["encoder_hidden_states"].tolist() for each, row in found.items()} == {A: [1], B: [2]}
    prompts.encode([B, C], ())
    assert family.calls == [[A, B], [C]]


def test_loras_have_encodings_of_their_own():
    family, prompts = cache()
    prompts.encode([A], ())
    prompts.encode([A], ("ink",))
    assert family.calls == [[A], [A]]


def test_the_longest_unused_is_forgotten():
    family, prompts = cache(kept=2)
    prompts.encode([A, B], ())
    prompts.encode([A], ())
    prompts.encode([C], ())
    assert len(prompts) == 2
    prompts.encode([A], ())
    prompts.encode([B], ())
    assert family.calls == [[A, B], [C], [B]]


def test_a_long_prompt_takes_the_place_of_several():
    family, prompts = cache(kept=4)
    long = prompt(9, chunks=3)
    prompts.encode([A, B], ())
    prompts.encode([long], ())
    assert len(prompts) == 2
    prompts.encode([B, long], ())
    assert family.calls == [[A, B], [long]]


def test_one_call_may_want_more_than_is_kept():
    _, prompts = cache(kept=1)
    assert set(prompts.encode([A, B, C], ())) == {A, B, C}
    assert len(prompts) == 1
