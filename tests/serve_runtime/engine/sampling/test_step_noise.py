# SPDX-License-Identifier: Apache-2.0
"""Noise that is generated before its step equals the noise that the step would generate."""

import threading
from dataclasses import replace

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.runners import preparation, runner
from sd_runtime.engine.image_task import tasks
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.sampling.step_noise import WINDOW, NoiseAhead, StepNoise
from sd_runtime.engine.sampling.step_plan import MODEL_TYPE
from sd_runtime.observability.observer import Silent

SHAPE = (1, 4, 2, 2)
TYPES = st.sampled_from([None, torch.float32, torch.float16, MODEL_TYPE])
ANCESTRAL = ImageRequest("a red circle", "", 64, 64, 8, 4.0, seed=1, scheduler="EulerAncestral")


def taken_one_by_one(steps):
    noise, found = StepNoise(3, SHAPE, torch.float32, steps), []
    for _ in steps:
        found.append(noise.current())
        noise.taken()
    return found


def alike(one, other):
    return (one is None and other is None) or torch.equal(one, other)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(TYPES, min_size=1, max_size=12), ahead=st.sets(st.integers(0, 11)))
def test_drawn_ahead_or_not_each_step_has_the_same_noise(steps, ahead):
    noise = StepNoise(3, SHAPE, torch.float32, steps)
    for index, wanted in enumerate(taken_one_by_one(steps)):
        if index in ahead:
            noise.draw_ahead()
        assert alike(noise.current(), wanted)
        assert alike(noise.current(), wanted), "asking twice draws once"
        noise.taken()


def test_two_threads_draw_in_the_order_of_the_steps():
    steps = [torch.float32] * 400
    noise, wanted, over = (
        StepNoise(3, SHAPE, torch.float32, steps),
        taken_one_by_one(steps),
        threading.Event(),
    )

    def draw():
        while not over.is_set():
            noise.draw_ahead()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for each in wanted:
            assert torch.equal(noise.current(), each)
            noise.taken()
    finally:
        over.set()
        thread.join()


def test_no_more_than_the_window_is_drawn(monkeypatch):
    drawn, draw = [], StepNoise._draw
    monkeypatch.setattr(StepNoise, "_draw", lambda self, dtype: (drawn.append(dtype), draw(self, dtype))[1])
    noise = StepNoise(3, SHAPE, torch.float32, [torch.float32] * 20)
    noise.draw_ahead()
    noise.draw_ahead()
    assert len(drawn) == WINDOW
    noise.taken()
    noise.draw_ahead()
    assert len(drawn) == WINDOW + 1


def test_more_is_asked_for_while_a_step_to_come_adds_noise():
    asked = []
    noise = StepNoise(3, SHAPE, torch.float32, [torch.float32] * (WINDOW + 2))
    noise.refill = asked.append
    noise.draw_ahead()
    for _ in range(WINDOW + 2):
        noise.taken()
        noise.draw_ahead()
    assert len(asked) == 2, "the last steps are drawn already"
    quiet = StepNoise(3, SHAPE, torch.float32, [None] * 5)
    quiet.refill = asked.append
    quiet.taken()
    assert len(asked) == 2


def test_no_step_draws_where_the_noise_is_drawn_ahead(monkeypatch, model):
    """Of a stochastic scheduler; the thread is played by this test."""
    in_step, drawn, draw = [False], [], StepNoise._draw
    monkeypatch.setattr(
        StepNoise, "_draw", lambda self, dtype: (drawn.append(in_step[0]), draw(self, dtype))[1]
    )
    pictures, wanted = tasks(replace(ANCESTRAL, count=2), model.family), []
    room = runner(model, Silent())
    assert preparation(model, Silent(), wanted.append)(pictures) == []
    for each in pictures:
        room.join(each)
    while room.tasks():
        while wanted:
            wanted.pop().draw_ahead()
        in_step[0] = True
        assert room.tick().failed == []
        in_step[0] = False
    assert len(drawn) > len(pictures) * (ANCESTRAL.steps - 1)
    assert not any(drawn)


def test_a_thread_draws_until_it_is_closed():
    ahead, noise = NoiseAhead(Device("cpu")), StepNoise(3, SHAPE, torch.float32, [torch.float32] * 9)
    ahead.put(noise)
    ahead.close()  # after what it was asked for
    ahead._thread.join(60)
    assert not ahead.alive
    assert len(noise._drawn) == WINDOW
