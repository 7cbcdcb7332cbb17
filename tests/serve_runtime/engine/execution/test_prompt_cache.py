# SPDX-License-Identifier: Apache-2.0
import torch

from sd_runtime.engine.execution.prompt_cache import PromptCache
from sd_runtime.engine.lora.lora_switch import Active
from sd_runtime.engine.prompts.chunks import Chunk, PromptChunks
from sd_runtime.observability.observer import Silent


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


class Switch:
    """Remembers what is switched on."""

    def __init__(self):
        self.activated = []

    def activate(self, names, strengths):
        self.activated.append((names, strengths))


INK = Active(("ink",), (("ink", 0.5),))


def cache(kept=3, switch=None):
    family = Family()
    return family, PromptCache(family, switch or Switch(), Silent(), kept)


def test_new_prompts_go_in_one_call_and_known_ones_in_none():
    family, prompts = cache()
    found = prompts.encode([A, B, A], Active())
    assert {each: row["encoder_hidden_states"].tolist() for each, row in found.items()} == {A: [1], B: [2]}
    prompts.encode([B, C], Active())
    assert family.calls == [[A, B], [C]]


def test_loras_have_encodings_of_their_own():
    family, prompts = cache()
    prompts.encode([A], Active())
    prompts.encode([A], INK)
    assert family.calls == [[A], [A]]


def test_the_longest_unused_is_forgotten():
    family, prompts = cache(kept=2)
    prompts.encode([A, B], Active())
    prompts.encode([A], Active())
    prompts.encode([C], Active())
    assert len(prompts) == 2
    prompts.encode([A], Active())
    prompts.encode([B], Active())
    assert family.calls == [[A, B], [C], [B]]


def test_a_long_prompt_takes_the_place_of_several():
    family, prompts = cache(kept=4)
    long = prompt(9, chunks=3)
    prompts.encode([A, B], Active())
    prompts.encode([long], Active())
    assert len(prompts) == 2
    prompts.encode([B, long], Active())
    assert family.calls == [[A, B], [long]]


def test_one_call_may_want_more_than_is_kept():
    _, prompts = cache(kept=1)
    assert set(prompts.encode([A, B, C], Active())) == {A, B, C}
    assert len(prompts) == 1


def test_loras_are_switched_on_only_where_something_is_encoded():
    """A switch takes as long as several encodings; popular prompts of several sets need none."""
    switch = Switch()
    _, prompts = cache(switch=switch)
    for loras in (INK, Active(), INK, Active()):
        prompts.encode([A], loras)
    assert switch.activated == [INK, Active()]
