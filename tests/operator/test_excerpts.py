# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd_operator.excerpts import ending, excerpt

SENTENCES = "The first sentence is here. The second one, which is longer, ends later."


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (len(SENTENCES), SENTENCES),
        (50, "The first sentence is here. ..."),
        (68, "The first sentence is here. The second one, which is longer ..."),
        (20, "The first ..."),
    ],
    ids=["it fits", "after a sentence", "after a clause, for the sentence is too short", "between words"],
)
def test_a_text_is_cut_between_two_thoughts(limit, expected):
    assert excerpt(SENTENCES, limit) == expected


def test_a_text_without_a_boundary_is_cut_where_the_room_ends():
    assert excerpt("x" * 30, 10) == "xxxxxx ..."


def test_the_end_of_a_text_starts_with_a_thought():
    assert ending(SENTENCES, len(SENTENCES)) == SENTENCES
    assert ending(SENTENCES, 60) == "... The second one, which is longer, ends later."
    assert ending(SENTENCES, 40) == "... which is longer, ends later."
    assert ending("x" * 30, 10) == "... xxxxxx"


@given(st.text(), st.integers(8, 200))
def test_the_limit_is_one_of_bytes(text, limit):
    for found in (excerpt(text, limit), ending(text, limit)):
        assert len(found.encode()) <= limit
        assert found == text or "..." in found
