# SPDX-License-Identifier: Apache-2.0
"""Turns and batches, without a model."""

from dataclasses import replace
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd_runtime.engine.execution.batcher import Batcher, BatchLimits
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest

SMALL = ImageRequest("", "", 64, 64, 5, 4.0)
LARGE = replace(SMALL, width=128, height=128)
MUCH = 10**9


def tasks(*requests, rows=2):
    return [ImageTask(request, rows=rows) for request in requests]


def grouped(members, **settings):
    groups = Batcher(**settings)
    for each in members:
        groups.add(each)
    return groups


def test_a_batch_is_of_one_kind_the_oldest_first():
    first, other, second = tasks(SMALL, LARGE, SMALL)
    assert list(grouped([first, other, second]).next(BatchLimits(8, MUCH))) == [first, second]


def test_kinds_are_sizes_and_sets_of_loras():
    (one,) = tasks(replace(SMALL, loras=("b", "a")))
    (two,) = tasks(replace(SMALL, loras=("a", "b")))
    (three,) = tasks(replace(SMALL, loras=("a",)))
    assert one.kind == two.kind != three.kind


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (BatchLimits(8, MUCH), 5),
        (BatchLimits(3, MUCH), 3),
        (BatchLimits(8, 2 * 64 * 64 * 4), 4),
        (BatchLimits(8, 2 * 64 * 64 * 4 - 1), 3),
        (BatchLimits(8, 1), 1),
    ],
    ids=["all", "pictures", "pixels", "not quite", "one at least"],
)
def test_a_batch_is_capped_by_pictures_and_by_pixels_of_its_rows(budget, count):
    assert len(grouped(tasks(*[SMALL] * 5)).next(budget)) == count


def test_unguided_pictures_take_half_the_budget():
    assert len(grouped(tasks(*[SMALL] * 8, rows=1)).next(BatchLimits(8, 64 * 64 * 6))) == 6


def test_a_new_kind_is_next():
    groups = grouped(tasks(*[SMALL] * 3))
    budget = BatchLimits(8, MUCH)
    for _ in range(50):
        groups.next(budget)
    (new,) = tasks(LARGE)
    groups.add(new)
    turns = [groups.next(budget) for _ in range(2)]
    assert [new] in [list(turn) for turn in turns]


@given(
    sides=st.lists(st.sampled_from([64, 128, 256, 512]), min_size=2, max_size=4, unique=True),
    crowd=st.lists(st.integers(1, 12), min_size=4, max_size=4),
)
def test_no_kind_starves(sides, crowd):
    """Between two turns of a kind the others compute no more than their own shares of its cost."""
    requests = [replace(SMALL, width=side) for side in sides]
    groups = grouped(
        [d for request, count in zip(requests, crowd, strict=False) for d in tasks(*[request] * count)]
    )
    budget = BatchLimits(8, MUCH)
    turns = [groups.next(budget)[0].kind.width for _ in range(200)]
    cost = {side: 2 * 64 * side for side in sides}
    for side in sides:
        places = [place for place, turn in enumerate(turns) if turn == side]
        widest = max(after - before for before, after in pairwise(places))
        assert widest <= 1 + sum(cost[side] / cost[other] + 1 for other in sides if other != side)


@pytest.mark.parametrize(
    "sides", [[64], [64, 72], range(64, 128, 8)], ids=["one size", "two in turn", "ever other ones"]
)
def test_the_oldest_does_not_starve_beside_short_ones_that_keep_coming(sides):
    """Each of them is done after one step, so that its kind leaves and comes again."""
    (oldest,) = tasks(LARGE)
    budget, groups = BatchLimits(8, MUCH), grouped([oldest])
    coming = (replace(SMALL, width=side) for side in cycle(sides))
    short, turns = tasks(next(coming)), []
    groups.add(short[0])
    for _ in range(200):
        short += tasks(next(coming))
        groups.add(short[-1])
        batch = groups.next(budget)
        turns.append(oldest in batch)
        groups.drop(set(batch) - {oldest})
    # A step of it costs as much as two to four of theirs.
    assert sum(turns) >= 200 / (1 + 4 * (1 + len(sides)))


class Clock:
    """Goes on by what is computed: a second for 64 x 64 pixels of one row."""

    now = 0.0

    def __call__(self):
        return self.now

    def compute(self, batch):
        kind = batch[0].kind
        self.now += sum(task.rows for task in batch) * kind.height * kind.width / 64**2
        return batch


INK, OIL = replace(SMALL, loras=("ink",)), replace(SMALL, loras=("oil",))


def switches(groups, clock, calls=400):
    """How often the set of LoRAs changed within so many calls."""
    sets = [clock.compute(groups.next(BatchLimits(8, MUCH)))[0].kind.loras for _ in range(calls)]
    return sum(one != other for one, other in pairwise(sets))


def test_sets_of_loras_take_turns_that_last():
    clock = Clock()
    lasting = grouped(tasks(INK, OIL), turn_seconds=16.0, clock=clock)  # eight calls of one guided image
    assert switches(lasting, clock) in range(400 // 8 - 2, 400 // 8 + 1)
    assert switches(grouped(tasks(INK, OIL), turn_seconds=0.0, clock=clock), clock) == 399


def test_sizes_of_one_set_alternate_within_its_turn():
    clock = Clock()
    members = tasks(replace(INK, width=72), replace(INK, width=80), OIL)
    groups = grouped(members, turn_seconds=64.0, clock=clock)
    widths = [clock.compute(groups.next(BatchLimits(8, MUCH)))[0].kind.width for _ in range(8)]
    assert {*widths[:2]} == {*widths[2:4]} == {72, 80}


kinds = st.lists(
    st.tuples(
        st.sampled_from([64, 72, 96, 128, 192]), st.sampled_from([(), ("ink",), ("oil",), ("ink", "oil")])
    ),
    min_size=2,
    max_size=12,
    unique=True,
)


@settings(deadline=None, max_examples=40)
@given(
    kinds=kinds,
    crowd=st.lists(st.integers(1, 8), min_size=12, max_size=12),
    turn=st.sampled_from([0, 1, 20, 100]),
)
def test_no_image_waits_longer_than_the_turns_of_all_others(kinds, crowd, turn):
    """The bound that the module states: a turn and three calls for each other image and each set of LoRAs."""
    requests = [replace(SMALL, width=side, height=side, loras=loras) for side, loras in kinds]
    members = [tasks(*[one] * count) for one, count in zip(requests, crowd, strict=False)]
    clock, budget = Clock(), BatchLimits(8, MUCH)
    groups = grouped([each for images in members for each in images], turn_seconds=turn, clock=clock)
    longest_call = max(
        2 * len(images) * images[0].kind.height * images[0].kind.width / 64**2 for images in members
    )
    images, sets = sum(map(len, members)), len({loras for _, loras in kinds})
    bound = (images + sets) * (turn + 3 * longest_call)
    seen = dict.fromkeys(kinds, 0.0)
    while clock.now < 2 * bound:
        batch = groups.next(budget)
        request = batch[0].request
        assert clock.now - seen[request.width, request.loras] <= bound
        clock.compute(batch)
        seen[request.width, request.loras] = clock.now
    assert all(clock.now - each <= bound for each in seen.values())


def test_a_set_of_loras_does_not_starve_beside_another_whose_images_keep_coming():
    """Each of them is done after one step, so that its key leaves and comes again."""
    clock, budget = Clock(), BatchLimits(8, MUCH)
    (oldest,) = tasks(OIL)
    groups = grouped([oldest], turn_seconds=16.0, clock=clock)
    coming = (replace(INK, width=side) for side in cycle([64, 72, 80]))
    groups.add(tasks(next(coming))[0])
    waits, since = [], 0.0
    for _ in range(600):
        groups.add(tasks(next(coming))[0])
        batch = clock.compute(groups.next(budget))
        if oldest in batch:
            waits.append(clock.now - since)
            since = clock.now
        groups.drop(set(batch) - {oldest})
    # Three images of others at a time: each a turn and three calls, as their two sets.
    assert max([*waits, clock.now - since]) <= (3 + 2) * (16.0 + 3 * 2.5)


def test_a_request_of_many_images_does_not_lock_out_others_of_its_kind():
    many = [ImageTask(replace(SMALL, count=16), index) for index in range(16)]
    groups, budget = grouped(many), BatchLimits(8, MUCH)
    groups.next(budget)
    (single,) = tasks(SMALL)
    groups.add(single)
    assert groups.ahead(single) == 0
    assert groups.ahead(many[8]) == 1
    groups.drop(many[:1])
    assert single in groups.next(budget)


def test_memory_that_ran_out_is_tried_again_after_a_while():
    budget = BatchLimits(8, 1000)
    budget.shrink(800)
    assert budget.now == 400
    budget.shrink(300)
    assert budget.now == 150
    for _ in range(400):
        budget.calm()
    assert budget.now == 600
    for _ in range(400):
        budget.calm()
    assert budget.now == 1000


def test_dropped_pictures_are_gone():
    members = tasks(SMALL, SMALL, LARGE)
    groups = grouped(members)
    groups.drop([members[0], members[2], members[2]])
    assert groups.all() == [members[1]]
    groups.drop([members[1]])
    assert len(groups) == 0
    assert groups.next(BatchLimits(8, MUCH)) == ()
