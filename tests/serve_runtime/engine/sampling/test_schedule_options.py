# SPDX-License-Identifier: Apache-2.0
"""Request options for the noise schedule, the guidance or the encoding, compared with the stock pipeline."""

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import diffusers
import mpmath
import numpy as np
import pytest
import torch
from diffusers.schedulers import (
    scheduling_dpmsolver_multistep,
    scheduling_dpmsolver_singlestep,
    scheduling_euler_discrete,
    scheduling_heun_discrete,
    scheduling_unipc_multistep,
)

from sd_runtime.config import SchedulerName, Sigmas, TimestepSpacing
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.sampling import beta_sigmas, schedulers
from sd_runtime.engine.schedule_options import OFFERED, ScheduleOptions
from sd_runtime.errors import InvalidRequest

RED = ImageRequest("a red circle on a white background", "a blue square", 64, 64, 5, 4.0, seed=1)
COMPANY = (
    replace(RED, seed=7, scheduler="DPMSolverMultistepSDE", schedule=ScheduleOptions("karras")),
    replace(RED, seed=8, steps=4, scheduler="PNDM", guidance_rescale=0.3, clip_skip=1),
    replace(RED, seed=9, steps=7, scheduler="DDIM", schedule=ScheduleOptions(None, "leading")),
)
EVERY = {
    "sigmas": [ScheduleOptions(sigmas=each) for each in get_args(Sigmas)],
    "timestep_spacing": [ScheduleOptions(timestep_spacing=each) for each in get_args(TimestepSpacing)],
    "rescale_betas_zero_snr": [ScheduleOptions(rescale_betas_zero_snr=True)],
}
OFFERS = [(name, each) for name, fields in OFFERED.items() for field in fields for each in EVERY[field]]
TOGETHER = [
    ("Euler", ScheduleOptions("karras", "trailing", True)),
    ("DPMSolverMultistepSDE", ScheduleOptions("exponential", "linspace", True)),
    ("UniPC", ScheduleOptions("beta", "trailing")),
    (None, ScheduleOptions("beta", "leading")),
]


def same(one, other):
    return torch.isfinite(one).all() and (one - other).abs().max() <= 1e-4 * max(1.0, float(other.std()))


def quantile(share, first, second):
    """Of the beta distribution, by mpmath's incomplete beta function."""
    if share in {0, 1}:
        return float(share)
    cdf = lambda place: mpmath.betainc(first, second, 0, place, regularized=True) - share  # noqa: E731
    return float(mpmath.findroot(cdf, (1e-12, 1 - 1e-12), solver="anderson", tol=1e-28))


@pytest.fixture
def with_scipy(monkeypatch):
    """Let diffusers compute as it does where SciPy is installed."""
    stats = SimpleNamespace(stats=SimpleNamespace(beta=SimpleNamespace(ppf=quantile)))
    for module in (
        scheduling_euler_discrete,
        scheduling_heun_discrete,
        scheduling_dpmsolver_multistep,
        scheduling_dpmsolver_singlestep,
        scheduling_unipc_multistep,
    ):
        monkeypatch.setattr(module, "is_scipy_available", lambda: True)
        monkeypatch.setattr(module, "scipy", stats, raising=False)


def of_diffusers(own, name, options):
    """The scheduler as a user of diffusers makes it."""
    kind = type(own) if name is None else getattr(diffusers, schedulers.SCHEDULERS[name])
    settings = {"use_karras_sigmas": False} if options.sigmas else {}
    if options.sigmas:
        settings[f"use_{options.sigmas}_sigmas"] = True
    if options.timestep_spacing:
        settings["timestep_spacing"] = options.timestep_spacing
    if options.rescale_betas_zero_snr is not None:
        settings["rescale_betas_zero_snr"] = options.rescale_betas_zero_snr
    if name and name.endswith("SDE"):
        settings["algorithm_type"] = "sde-dpmsolver++"
    if name == "PNDM":
        settings["skip_prk_steps"] = True
    return kind.from_config(own.config, **settings)


def needs_signal(model, name, options):
    """Zero SNR with schedulers that divide by the signal, where the model predicts noise."""
    divides = name in {"DDIM", "DDPM", "LCM"} and options.rescale_betas_zero_snr
    return divides and model.pipeline.scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize("kind", ["model", "xl_model"])
@pytest.mark.parametrize(("name", "options"), OFFERS + TOGETHER, ids=str)
@pytest.mark.usefixtures("with_scipy")
def test_each_option_draws_as_in_diffusers_alone_and_in_company(bench, request, kind, name, options):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, scheduler=name, schedule=options)
    if needs_signal(runner.model, name, options):
        wanted = replace(wanted, schedule=options._replace(timestep_spacing="leading"))
        with pytest.raises(InvalidRequest):
            schedulers.fresh(runner.model.pipeline.scheduler, name, 5, options)
        if name == "LCM":
            return  # It always starts at the last timestep.
    stock = runner.stock(
        wanted, scheduler=of_diffusers(runner.model.pipeline.scheduler, name, wanted.schedule)
    )
    (alone,) = runner.latents(wanted)
    together = runner.latents(*COMPANY, wanted)[-1]
    assert same(alone, stock)
    assert same(together, stock)


@pytest.mark.usefixtures("with_scipy")
def test_steps_that_fall_on_one_timestep_are_all_taken(bench, xl_model):
    """Stock SDXL counts its steps, as here; stock Stable Diffusion searches for them and ends in an error."""
    runner, options = bench(xl_model), ScheduleOptions("beta", "trailing", rescale_betas_zero_snr=True)
    wanted = replace(RED, scheduler="UniPC", schedule=options)
    timesteps = schedulers.fresh(xl_model.pipeline.scheduler, "UniPC", 5, options).timesteps
    assert len(set(timesteps.tolist())) < 5
    stock = runner.stock(wanted, scheduler=of_diffusers(xl_model.pipeline.scheduler, "UniPC", options))
    assert same(runner.latents(*COMPANY, wanted)[-1], stock)


@pytest.mark.parametrize("name", get_args(SchedulerName))
def test_each_offered_option_changes_the_picture(bench, model, name):
    runner = bench(model)
    (usual,) = runner.latents(replace(RED, scheduler=name))
    for field in OFFERED[name]:
        found = runner.latents(*(replace(RED, scheduler=name, schedule=each) for each in EVERY[field]))
        assert any(not same(each, usual) for each in found), field


def test_every_scheduler_is_in_the_table():
    assert set(OFFERED) == set(get_args(SchedulerName)) == set(schedulers.SCHEDULERS)


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        (name, each, field)
        for name, fields in OFFERED.items()
        for field in sorted(EVERY.keys() - set(fields))
        for each in EVERY[field][:1]
    ],
    ids=str,
)
def test_an_option_that_a_scheduler_would_ignore_is_refused(model, name, options, field):
    with pytest.raises(
        InvalidRequest, match=f"^{field}: got .*: the scheduler {name} has no such option"
    ) as caught:
        schedulers.fresh(model.pipeline.scheduler, name, 5, options)
    assert caught.value.param == field


def test_false_is_no_wish_where_there_is_no_option(model):
    options = ScheduleOptions(rescale_betas_zero_snr=False)
    assert schedulers.fresh(model.pipeline.scheduler, "PNDM", 5, options)


def test_no_signal_for_a_model_that_predicts_noise_is_refused(xl_model):
    options = ScheduleOptions(timestep_spacing="trailing", rescale_betas_zero_snr=True)
    with pytest.raises(
        InvalidRequest, match=r"^rescale_betas_zero_snr: got true: must be false with the scheduler DDIM"
    ) as caught:
        schedulers.fresh(xl_model.pipeline.scheduler, "DDIM", 5, options)
    assert caught.value.param == "rescale_betas_zero_snr"


def test_the_models_own_scheduler_of_any_class_has_the_options_of_its_constructor(model):
    own = diffusers.DEISMultistepScheduler.from_config(model.pipeline.scheduler.config)
    found = schedulers.offered(own)
    assert found["DEISMultistepScheduler"] == ("sigmas", "timestep_spacing")
    assert found["Euler"] == OFFERED["Euler"]
    karras = schedulers.fresh(own, None, 5, ScheduleOptions("karras"))
    assert karras.config.use_karras_sigmas


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "DPMSolverSinglestep"])
def test_the_solver_with_noise_and_the_one_without_have_names_of_their_own(model, name):
    noisy, plain = (schedulers.fresh(model.pipeline.scheduler, each, 5) for each in (f"{name}SDE", name))
    assert [schedulers.name_of(each) for each in (noisy, plain)] == [f"{name}SDE", name]
    assert schedulers.fresh(noisy, name, 5).config.algorithm_type == "dpmsolver++"


@pytest.mark.parametrize("count", [1, 2, 5, 50, 1000])
def test_quantiles_are_those_of_the_beta_distribution(count):
    shares = 1 - np.linspace(0, 1, count)
    found = beta_sigmas.quantiles(shares)
    for share, place in list(zip(shares, found, strict=True))[:: max(1, count // 20)]:
        assert abs(float(mpmath.betainc(0.6, 0.6, 0, place, regularized=True)) - share) < 1e-14


@pytest.mark.parametrize("kind", ["model", "xl_model"])
@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_guidance_is_rescaled_as_in_diffusers(bench, request, kind, guidance, rescale):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, guidance=guidance, guidance_rescale=rescale)
    stock = runner.stock(wanted, guidance_rescale=rescale)
    assert same(runner.latents(wanted)[0], stock)
    assert same(runner.latents(*COMPANY, wanted)[-1], stock)
    assert same(stock, runner.stock(wanted)) == (guidance == 1)


@pytest.fixture
def old_transformers(request, monkeypatch):
    """Where diffusers 0.42 looks for the norm that it needs for `clip_skip`: transformers 5 has it in the encoder itself."""
    encoder = request.getfixturevalue("model").pipeline.text_encoder
    monkeypatch.setitem(encoder.__dict__, "text_model", encoder)


@pytest.mark.parametrize(("kind", "skips"), [("model", (0, 1, 2)), ("xl_model", (0, 1))])
@pytest.mark.usefixtures("old_transformers")
def test_layers_are_skipped_as_in_diffusers(bench, request, kind, skips):
    runner = bench(request.getfixturevalue(kind))
    found = []
    for skip in skips:
        wanted = replace(RED, clip_skip=skip)
        stock = runner.stock(wanted, clip_skip=skip)
        assert same(runner.latents(wanted)[0], stock)
        assert same(runner.latents(RED, *COMPANY, wanted)[-1], stock)
        found.append(stock)
    assert same(found[0], runner.stock(RED))
    assert not same(found[0], found[1])


@pytest.mark.parametrize(("kind", "most"), [("model", 2), ("xl_model", 1)])
def test_no_more_layers_are_skipped_than_there_are(request, kind, most):
    family = request.getfixturevalue(kind).family
    for wrong in (most + 1, -1):
        with pytest.raises(
            InvalidRequest, match=f"clip_skip: got {wrong}: must be from 0 to {most} for this model"
        ):
            family.prompts(replace(RED, clip_skip=wrong))
