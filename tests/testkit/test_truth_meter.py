# SPDX-License-Identifier: Apache-2.0
"""The truth meter counts correctly."""

import pytest

from sd_testkit.truth.meter import Sample, Verdict, judge


def samples(served, ours, kuberays):
    return [
        Sample(float(at), *({"#": True, ".": False}.get(each) for each in column))
        for at, column in enumerate(zip(served, ours, kuberays, strict=True))
    ]


@pytest.mark.parametrize(
    ("served", "ours", "kuberays", "verdict"),
    [
        ("....####....", "....####....", "....####....", Verdict(12, 0, 0)),
        ("....####....", "......##....", "............", Verdict(12, 0, 0)),  # within the grace
        ("....########", "....########", "............", Verdict(12, 0, 3)),  # beyond it
        ("############", "######......", "############", Verdict(12, 6, 0)),  # no flip to excuse it
        (
            "############",
            "####        ",
            "............",
            Verdict(4, 0, 12),
        ),  # what does not exist says nothing, and counts for nothing
        ("#.#.#.#.#.#.", "############", "............", Verdict(12, 0, 1)),  # it flips all the time
    ],
)
def test_seconds_are_wrong_beyond_the_grace(served, ours, kuberays, verdict):
    assert judge(samples(served, ours, kuberays)) == verdict
