# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from types import SimpleNamespace

import diffusers
import pytest
import torch

from sd_runtime.engine.image_task import ImageTask
from sd_runtime.engine.interface import ImageRequest, Output
from sd_runtime.engine.postprocess import previews
from sd_runtime.engine.sampling import clean_latents, schedulers
from sd_runtime.engine.sampling.schedulers import SCHEDULERS

RED = ImageRequest("", "", 64, 64, 12, 4.0)


@pytest.mark.parametrize(
    ("steps", "wanted", "at"),
    [(12, 0, {}), (12, 1, {6: 0}), (12, 3, {3: 0, 6: 1, 9: 2}), (5, 3, {1: 0, 2: 1, 3: 2}), (1, 3, {})],
    ids=["none", "one", "three", "few steps", "one step"],
)
def test_previews_are_spread_over_the_steps(steps, wanted, at):
    task = ImageTask(replace(RED, output=Output(previews=wanted)), steps=steps)
    found = {}
    for task.step in range(1, steps + 1):
        number = previews.due(task)
        if number is not None:
            found[task.step] = number
    assert found == at


def test_a_fitted_map_tells_the_colours_of_pictures(bench, model):
    requests = [
        replace(RED, prompt=prompt, seed=seed)
        for seed, prompt in enumerate(
            ["a red circle on white", "a green heart on gray", "a blue square on black"]
        )
    ]
    latents = torch.cat(bench(model).latents(*requests))
    vae = model.pipeline.vae
    with torch.inference_mode():
        pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        colours = previews.fitted(vae)
    cells = torch.nn.functional.avg_pool2d(pixels, 8)
    told = torch.einsum("bchw,cr->brhw", latents, colours.weights) + colours.bias[:, None, None]
    assert (told - cells).square().mean() < 0.2 * cells.var()


def test_any_number_of_channels_is_fitted(wide_model):
    colours = previews.colours(wide_model.pipeline)
    assert colours.weights.shape == (8, 3)
    assert colours.image(torch.zeros(1, 8, 9, 8)).size == (64, 72)


def test_latents_with_a_mean_and_a_spread_are_fitted_as_they_are_decoded():
    """Here by a VAE whose latents are the colours, one cell a pixel."""
    config = SimpleNamespace(
        block_out_channels=(1,),
        latent_channels=3,
        scaling_factor=0.5,
        latents_mean=[0.1, -0.2, 0.3],
        latents_std=[1.0, 2.0, 3.0],
    )
    vae = SimpleNamespace(
        config=config, device="cpu", dtype=torch.float32, decode=lambda latents, return_dict: (latents,)
    )
    colours = previews.fitted(vae)
    assert torch.allclose(colours.weights, torch.diag(torch.tensor([2.0, 4.0, 6.0])), atol=1e-4)
    assert torch.allclose(colours.bias, torch.tensor([0.1, -0.2, 0.3]), atol=1e-4)


def test_latents_that_are_no_numbers_still_make_a_picture(model):
    assert previews.colours(model.pipeline).image(torch.full((1, 12, 8, 8), float("nan"))).size == (64, 64)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [(diffusers.StableDiffusionPipeline, 0.18215), (diffusers.StableDiffusionXLPipeline, 0.13025)],
    ids=["SD", "SDXL"],
)
def test_the_known_vaes_have_published_maps(kind, scale):
    """Nothing is decoded for them."""
    known = kind.__new__(kind)
    config = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4, "scaling_factor": scale}
    object.__setattr__(known, "vae", SimpleNamespace(config=SimpleNamespace(**config)))
    assert previews.colours(known).bias.tolist() == [0, 0, 0]


def record_steps(runner, monkeypatch):
    """The latents of the only image before each step, and the guided prediction for them."""
    steps, predict = [], runner.runner._predict

    def recorded(trajectories):
        (advance,) = advances = predict(trajectories)
        steps.append((trajectories[0].latents, advance.prediction))
        return advances

    monkeypatch.setattr(runner.runner, "_predict", recorded)
    return steps


def by_definition(scheduler, place, prediction, sample):
    """Clean latents from the noise level of a step, in float64."""
    x, guess = sample.double(), prediction.double()
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[place])
        if scheduler.init_noise_sigma == 1:
            x = x * (1 + sigma**2) ** 0.5  # as if the noise had been added to the image
    else:
        share = float(scheduler.alphas_cumprod[int(scheduler.timesteps[place])])
        sigma, x = ((1 - share) / share) ** 0.5, x / share**0.5
    if scheduler.config.prediction_type == "epsilon":
        return x - sigma * guess
    return x / (1 + sigma**2) - guess * sigma / (1 + sigma**2) ** 0.5


def near(one, other):
    return (one - other).abs().max() <= 1e-3 * max(1.0, float(other.std()))


@pytest.mark.parametrize("kind", ["model", "xl_model"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_preview_shows_the_image_that_the_step_points_to(bench, request, monkeypatch, kind, name):
    runner = bench(request.getfixturevalue(kind))
    steps = record_steps(runner, monkeypatch)
    scheduler = schedulers.fresh(runner.model.pipeline.scheduler, name, 6)
    (task,) = runner.join(replace(RED, prompt="a red circle", scheduler=name, steps=6, seed=3))
    while runner.runner.tasks():
        runner.runner.tick()
        place, (sample, prediction) = len(steps) - 1, steps[-1]
        timestep = scheduler.timesteps[place]
        scheduler.scale_model_input(sample, timestep)
        stepped = scheduler.step(prediction, timestep, sample, return_dict=False)
        found = task.trajectory.predicted().double()
        if len(stepped) > 1:
            assert near(found, stepped[1].double())  # diffusers' own
        wanted = by_definition(scheduler, place, prediction, sample)
        assert near(clean_latents.of(scheduler, place, sample, prediction).double(), wanted)
        if scheduler.config.get("clip_sample"):
            wanted = wanted.clamp(-1, 1)
        assert name == "LCM" or near(found, wanted)  # LCM mixes the latents in by a rule of its own.
    assert len(steps) == task.steps


def test_a_preview_has_no_noise_left_long_before_the_end(bench, model):
    runner = bench(model)
    wanted = replace(RED, prompt="a red circle on a white background", steps=12, seed=3)
    (task,) = runner.join(wanted)
    for _ in range(6):
        runner.runner.tick()
    halfway, noisy = task.trajectory.predicted(), task.trajectory.latents
    runner.run()
    final = task.trajectory.latents
    assert (halfway - final).square().mean() < 0.5 * final.var()
    assert (halfway - final).square().mean() < 0.1 * (noisy - final).square().mean()


def test_before_the_first_step_there_is_only_noise(bench, model):
    runner = bench(model)
    (task,) = runner.join(RED)
    assert task.trajectory.predicted() is task.trajectory.latents
