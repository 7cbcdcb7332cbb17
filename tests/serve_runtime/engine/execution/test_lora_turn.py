# SPDX-License-Identifier: Apache-2.0
"""A set of LoRAs keeps the UNet for a limited time."""

import pytest

from sd_runtime.engine.execution.lora_turn import LONGEST_TURN_SECONDS, TURN_SECONDS, LoraTurn
from sd_runtime.engine.image_task import BatchKey

BARE, LARGE = BatchKey(64, 64, ()), BatchKey(128, 128, ())
INK, STRONG_INK = BatchKey(64, 64, ("ink",)), BatchKey(64, 64, ("ink",), lora_strengths=(("ink", 2.0),))


@pytest.fixture
def turn(clock):
    """That of the bare model has just begun."""
    made = LoraTurn(TURN_SECONDS, lambda: 0.0, clock)
    made.take(BARE)
    return made


def test_the_first_turn_is_anybodys(clock):
    assert LoraTurn(TURN_SECONDS, lambda: 0.0, clock).eligible([BARE, INK]) == [BARE, INK]


def test_all_sizes_of_the_set_share_its_turn(turn):
    assert turn.eligible([INK, BARE, LARGE]) == [BARE, LARGE]


def test_the_same_lora_at_another_strength_is_another_set(turn):
    turn.take(INK)
    assert turn.eligible([STRONG_INK, INK]) == [INK]


def test_a_turn_ends_with_its_time(turn, clock):
    clock.now += TURN_SECONDS * 0.99
    assert turn.eligible([BARE, INK]) == [BARE]
    clock.now += TURN_SECONDS * 0.02
    assert turn.eligible([BARE, INK]) == [BARE, INK]


def test_a_set_whose_images_are_done_gives_way_at_once(turn):
    assert turn.eligible([INK]) == [INK]


def test_a_set_that_goes_on_after_its_turn_has_a_new_one(turn, clock):
    clock.now += TURN_SECONDS
    turn.take(BARE)
    assert turn.eligible([BARE, INK]) == [BARE]


@pytest.mark.parametrize(
    ("switch", "length"),
    [(0.0, TURN_SECONDS), (0.01, TURN_SECONDS), (0.023, 0.368), (0.12, 1.92), (30.0, LONGEST_TURN_SECONDS)],
    ids=["none", "quick", "SD 2.1", "SDXL", "a machine that stood still"],
)
def test_a_turn_is_long_beside_its_switch_but_bounded(clock, switch, length):
    turn = LoraTurn(TURN_SECONDS, lambda: switch, clock)
    turn.take(BARE)
    clock.now += length - 0.001
    assert turn.eligible([BARE, INK]) == [BARE]
    clock.now += 0.002
    assert turn.eligible([BARE, INK]) == [BARE, INK]


def test_without_length_sets_alternate(clock):
    turn = LoraTurn(0.0, lambda: 0.0, clock)
    turn.take(BARE)
    assert turn.eligible([BARE, INK]) == [BARE, INK]
