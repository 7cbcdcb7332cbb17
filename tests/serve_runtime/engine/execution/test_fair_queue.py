# SPDX-License-Identifier: Apache-2.0
"""Requests take turns within a batch key, whatever their numbers of images."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sd_runtime.engine.execution.fair_queue import FairQueue
from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest


def request(count, name=""):
    """The images of one request."""
    asked = ImageRequest(name, count=count)
    return [ImageTask(asked, index) for index in range(count)]


def queue_of(*requests):
    queue = FairQueue()
    for images in requests:
        for image in images:
            queue.add(image)
    return queue


def begin(queue, most):
    batch = queue.first(most)
    queue.begin(batch)
    return batch


def test_images_of_one_request_begin_in_their_order():
    many = request(5)
    queue = queue_of(many)
    assert begin(queue, 3) == many[:3]
    assert queue.all() == many


def test_a_single_image_is_next_although_many_of_one_request_wait():
    many, single = request(16), request(1)
    queue = queue_of(many)
    running = begin(queue, 8)
    for image in single:
        queue.add(image)
    assert queue.ahead(single[0]) == 0
    queue.remove({running[0]})
    assert begin(queue, 8) == [*running[1:], *single]


def test_requests_that_wait_together_take_turns_image_by_image():
    first, second = request(3), request(3)
    assert queue_of(first, second).all() == [
        image for pair in zip(first, second, strict=True) for image in pair
    ]


def test_an_image_that_has_begun_is_never_put_back():
    many = request(4)
    queue = queue_of(many)
    running = begin(queue, 2)
    for _ in range(3):
        for image in request(1):
            queue.add(image)
    assert queue.first(2) == running
    assert queue.first(1) == running[:1]  # where memory has run out since
    assert queue.ahead(running[1]) == 0


def test_ahead_is_the_number_of_images_that_begin_before():
    queue = queue_of(request(4), request(3), single := request(1))
    places = [queue.ahead(image) for image in queue.all()]
    assert places == list(range(8))
    assert queue.ahead(single[0]) == 2
    assert queue.ahead(ImageTask(ImageRequest(""))) == 0


arrivals = st.lists(st.tuples(st.integers(1, 16), st.integers(0, 3)), min_size=1, max_size=12)


@given(arrivals=arrivals, most=st.integers(1, 8))
def test_no_later_request_delays_the_first_image_of_an_earlier_one(arrivals, most):
    """Each arrival: images of the request, and calls until the next one, each of which finishes the oldest image."""
    queue, firsts, ahead = FairQueue(), [], {}

    def step():
        batch = begin(queue, most)
        queue.remove(set(batch[:1]))

    for count, calls in arrivals:
        images = request(count)
        firsts.append(images[0])
        for image in images:
            queue.add(image)
        for _ in range(calls):
            step()
        for first in firsts:
            place = queue.ahead(first)
            assert place <= ahead.get(first, place)
            ahead[first] = place
    begun = []
    while len(queue):
        begun += [image for image in queue.first(most) if image in firsts and image not in begun]
        step()
    assert begun == [first for first in firsts if first in begun]


@given(crowd=st.integers(1, 16), singles=st.integers(1, 16))
def test_a_single_image_waits_for_one_image_of_each_request_before_it(crowd, singles):
    waiting = [request(16) for _ in range(crowd)] + [request(1) for _ in range(singles)]
    queue = queue_of(*waiting)
    assert queue.ahead(waiting[-1][0]) == crowd + singles - 1


def test_the_later_images_of_a_large_request_do_not_starve_beside_single_ones_that_keep_coming():
    """At each call one image ends and a single one comes, so that these alone would fill every place."""
    many = request(16)
    queue = queue_of(many)
    begun = []
    for _ in range(160):
        for image in request(1):
            queue.add(image)
        batch = begin(queue, 1)
        begun += batch
        queue.remove(set(batch))
    places = [begun.index(image) for image in many]
    # One image of it in each round; a round is as long as the round before, and one single image longer.
    assert max(after - before for before, after in pairwise(places)) <= 16 + 1
