# SPDX-License-Identifier: Apache-2.0
"""An image does not depend on the other images in its batch, and their results do not depend on its end."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.sampling.schedulers import SCHEDULERS
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.errors import InvalidRequest

RED = ImageRequest("a red circle on a white background", "", 64, 64, 5, 4.0, seed=1)
COMPANY = (
    replace(RED, prompt="a blue square", seed=7, steps=3, guidance=1.0, scheduler="DDIM"),
    replace(RED, prompt="a green heart", negative_prompt="red", seed=8, steps=9, scheduler="EulerAncestral"),
    replace(RED, prompt="", seed=9, steps=4, guidance=7.5, scheduler="Heun"),
)


def same(one, other, tolerance=1e-4):
    """Equal to 1e-4 of latents of unit spread, as Stable Diffusion's are; those of the bundled model spread wider."""
    return torch.isfinite(one).all() and (one - other).abs().max() <= tolerance * max(1.0, float(other.std()))


@pytest.mark.parametrize("kind", ["model", "xl_model", "wide_model"])
@pytest.mark.parametrize("name", [*SCHEDULERS, None], ids=str)
def test_alone_together_late_and_stock_are_the_same(bench, request, kind, name):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, scheduler=name)
    stock = runner.stock(wanted)
    (alone,) = runner.latents(wanted)
    together = runner.latents(*COMPANY, wanted)[-1]
    runner.join(*COMPANY)
    runner.runner.tick()
    runner.runner.tick()
    late = runner.latents(wanted)[0]
    assert all(same(stock, each) for each in (alone, together, late))


@pytest.mark.parametrize("kind", ["model", "xl_model", "wide_model"])
@pytest.mark.parametrize(
    "change",
    [
        {"negative_prompt": "a blue square"},
        {"guidance": 1.0},
        {"guidance": 0.0},
        {"steps": 1},
        {"width": 96, "height": 64},
        {"prompt": "x" * 75},
    ],
    ids=str,
)
def test_every_request_is_drawn_as_by_the_stock_pipeline(bench, request, kind, change):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, **change)
    assert same(runner.stock(wanted), runner.latents(*COMPANY, wanted)[-1])


arrivals = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.builds(
            ImageRequest,
            prompt=st.sampled_from(
                ["a red circle", "a (blue:1.4) star BREAK white", "", "☃ naïve", "x" * 80]
            ),
            prompt_syntax=st.sampled_from(["plain", "weighted"]),
            negative_prompt=st.sampled_from(["", "green", "a heart"]),
            width=st.sampled_from([64, 72]),
            height=st.just(64),
            steps=st.integers(1, 6),
            guidance=st.sampled_from([0.0, 1.0, 1.5, 4.0, 9.0]),
            seed=st.integers(0, 2**53 - 1),
            scheduler=st.sampled_from([None, *SCHEDULERS]),
            schedule=st.sampled_from([ScheduleOptions(), ScheduleOptions(rescale_betas_zero_snr=False)]),
            guidance_rescale=st.sampled_from([0.0, 0.7]),
            clip_skip=st.sampled_from([None, 1]),
        ),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=arrivals, most=st.integers(1, 8))
def test_any_mix_draws_what_each_request_draws_alone(bench, model, arrivals, most):
    """Arrivals at random ticks; each is cancelled after a number of ticks if it is not done by then."""
    runner = bench(model)
    runner.budget.pictures = most
    tasks, tick = [], 0
    while runner.runner.tasks() or tick <= 6:
        for _, request, patience in (each for each in arrivals if each[0] == tick):
            tasks += [(each, patience) for each in runner.join(request)]
        for task, patience in tasks:
            task.cancelled = tick > patience
        assert runner.runner.tick().failed == []
        tick += 1
    for task, _ in tasks:
        if task.finished:
            (alone,) = bench(model).latents(task.request)
            # Calls of other sizes round otherwise, and guidance of 9 multiplies that.
            assert same(task.trajectory.latents, alone, 3e-4)
        else:
            assert task.cancelled


def test_different_requests_share_a_call(bench, model, unet_calls):
    rows = unet_calls(model)
    bench(model).latents(RED, *COMPANY)
    assert rows == [7, 7, 7, 6, 6, 4, 4, 2, 2]  # one unguided; Heun makes 2n - 1 calls


def test_a_new_picture_joins_at_the_next_step(bench, model, unet_calls):
    runner, rows = bench(model), unet_calls(model)
    runner.join(RED)
    runner.runner.tick()
    runner.join(RED)
    runner.run()
    assert rows == [2, 4, 4, 4, 4, 2]


def test_a_batch_counts_pictures_and_the_rest_waits_in_order(bench, model, unet_calls):
    runner, rows = bench(model), unet_calls(model)
    runner.budget.pictures = 2
    first, second, third = runner.join(RED, RED, replace(RED, steps=2))
    runner.runner.tick()
    assert [runner.runner.ahead(each) for each in (first, second, third)] == [0, 0, 0]
    assert [each.begun for each in (first, second, third)] == [True, True, False]
    runner.run()
    assert rows == [4, 4, 4, 4, 4, 2, 2]


def test_a_cancelled_picture_takes_no_further_step(bench, model, unet_calls):
    runner, rows = bench(model), unet_calls(model)
    gone, stays = runner.join(RED, RED)
    runner.runner.tick()
    gone.cancelled = True
    assert runner.runner.tick().cancelled == [gone]
    runner.run()
    assert rows == [4, 2, 2, 2, 2]
    assert same(stays.trajectory.latents, runner.stock(RED))


def fails_for(runner, monkeypatch, culprit, error):
    """Let every UNet call fail that holds the culprit."""
    predict = runner.runner._predict

    def broken(trajectories):
        if any(each is culprit.trajectory for each in trajectories):
            raise error
        return predict(trajectories)

    monkeypatch.setattr(runner.runner, "_predict", broken)


def test_a_failing_picture_fails_alone(bench, model, monkeypatch):
    runner = bench(model)
    tasks = runner.join(RED, *COMPANY)
    error = ValueError("a secret prompt")
    fails_for(runner, monkeypatch, tasks[2], error)
    assert runner.run() == [(tasks[2], error)]
    for each in (tasks[0], tasks[1], tasks[3]):
        assert same(each.trajectory.latents, runner.stock(each.request))


def test_a_picture_that_cannot_begin_fails_alone(bench, wide_model):
    runner = bench(wide_model)
    too_many = replace(RED, steps=60)  # of the 50 that the model was distilled to
    ((task, error),) = [runner.join(RED, too_many), runner.run()][1]
    assert task.request is too_many
    assert isinstance(error, InvalidRequest)
    assert (error.param, "60" in str(error)) == ("steps", True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_halves_the_batch(bench, model, monkeypatch, error):
    runner = bench(model)
    predict, sizes = runner.runner._predict, []

    def small(trajectories):
        sizes.append(len(trajectories))
        if len(trajectories) > 2:
            raise error
        return predict(trajectories)

    monkeypatch.setattr(runner.runner, "_predict", small)
    tasks = runner.join(*(replace(RED, seed=seed, steps=2) for seed in range(6)))
    assert runner.run() == []
    assert sizes[:5] == [6, 3, 1, 2, 3]
    assert sizes.count(6) == 1  # it does not run into it at every step
    for each in tasks:
        assert same(each.trajectory.latents, runner.stock(each.request))


def test_a_picture_that_never_fits_fails_and_the_others_are_drawn(bench, model, monkeypatch):
    runner = bench(model)
    tasks = runner.join(RED, replace(RED, seed=2), replace(RED, seed=3))
    fails_for(runner, monkeypatch, tasks[1], torch.OutOfMemoryError("CUDA out of memory"))
    ((failed, _),) = runner.run()
    assert failed is tasks[1]
    assert same(tasks[2].trajectory.latents, runner.stock(tasks[2].request))


def test_not_a_number_stays_with_its_picture(bench, model, monkeypatch):
    runner = bench(model)
    first, second = runner.join(RED, replace(RED, seed=2))
    runner.runner.tick()
    first.trajectory.latents = first.trajectory.latents * float("nan")
    assert runner.run() == []
    assert first.trajectory.latents.isnan().all()
    assert same(second.trajectory.latents, runner.stock(second.request))


def test_sizes_take_turns_and_none_starves(bench, model):
    """A large picture does not hold up small ones, and a flood of small ones does not stop the large one."""
    runner = bench(model)
    (large,) = runner.join(replace(RED, width=128, height=128, steps=5))
    small, ticks = [], 0
    while not large.finished:
        if sum(not each.begun for each in small) < 4:
            small += runner.join(replace(RED, steps=2, seed=ticks))
        runner.runner.tick()
        ticks += 1
    assert any(each.finished for each in small)
    # Four times the cells: each of its steps costs as much as four of a small picture, and gets its turn.
    assert ticks <= 5 * (1 + 4) + 1
    runner.run()
