# SPDX-License-Identifier: Apache-2.0
"""Images with different schedulers advance in one update. Each result equals that of diffusers' own scheduler."""

import inspect
import itertools
from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.sampling import batched_step, denoise_state, schedulers, step_plan
from sd_runtime.engine.sampling.schedulers import SCHEDULERS
from sd_runtime.engine.sampling.step_noise import StepNoise
from sd_runtime.engine.sampling.unet_batch import UNetBatch, padded_rows
from sd_runtime.engine.schedule_options import OFFERED, ScheduleOptions
from sd_runtime.errors import InvalidRequest

CHANNELS, SIDE, CELL = 4, 6, 8
IMAGE = ImageRequest("", "", SIDE * CELL, SIDE * CELL, 7, 4.0, seed=3)
STEPS = (1, 2, 5, 20)


def model_scheduler(kind=diffusers.EulerDiscreteScheduler, **changed):
    """The scheduler of a model, as Stable Diffusion's are configured."""
    config = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "clip_sample": False,
        "prediction_type": "v_prediction",
    }
    return kind.from_config(config | changed)


def unet(samples, timesteps, conditions):
    """No network, but like one it depends on all that it gets, and not linearly."""
    text = conditions["encoder_hidden_states"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    time = (timesteps / 1000).view(-1, 1, 1, 1).to(samples.dtype)
    return 0.6 * torch.tanh(samples + text) + 0.3 * samples.roll(1, dims=-1) * time


def conditions_of(request, dtype=torch.float32):
    rows = 2 if (request.guidance or 0) > 1 else 1
    numbers = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(request.seed))
    return {"encoder_hidden_states": numbers[-rows:].to(dtype)}


def begin(own, request, dtype=torch.float32):
    conditions = conditions_of(request, dtype)
    return denoise_state.begin(
        own, request, seed=request.seed, conditions=conditions, channels=CHANNELS, cell=CELL
    )


def finished(image):
    return image.index == image.plan.steps


def advance(images, predict):
    """One step with all of them."""
    for image, share in zip(images, predict(images), strict=True):
        image.advance(share)


def together(*images, **settings):
    """Advance until all are done."""
    predict = UNetBatch(unet, **settings)
    with torch.inference_mode():
        while going := [image for image in images if not finished(image)]:
            advance(going, predict)
    return [image.latents for image in images]


def by_diffusers(own, request, dtype=torch.float32):
    """The denoising loop of diffusers' pipelines."""
    scheduler = schedulers.fresh(own, request.scheduler, request.steps, request.schedule)
    conditions = conditions_of(request, dtype)
    rows = len(conditions["encoder_hidden_states"])
    generator = torch.Generator().manual_seed(request.seed)
    latents = torch.randn((1, CHANNELS, SIDE, SIDE), generator=generator, dtype=dtype)
    latents = latents * scheduler.init_noise_sigma
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if takes_generator else {}
    for timestep in scheduler.timesteps:
        samples = scheduler.scale_model_input(torch.cat([latents] * rows), timestep)
        prediction = unet(samples, timestep.float().expand(rows), conditions)
        if rows == 2:
            avoid, follow = prediction.chunk(2)
            prediction = avoid + request.guidance * (follow - avoid)
            if request.guidance_rescale > 0:
                prediction = rescale_noise_cfg(prediction, follow, request.guidance_rescale)
        latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
    return latents


def same(one, other, most=1e-4):
    """Equal to 1e-4 of latents of unit spread."""
    return torch.isfinite(one).all() and (one - other).abs().max() <= most * max(1.0, float(other.std()))


def rounding(plan):
    """What float32 loses, in diffusers too: its steps in the last digit, times the largest number of the plan.

    That is 4096 where latents start from so much noise (`rescale_betas_zero_snr`), and 250 in two steps of Heun.
    """
    return max(1e-4, 2**-21 * max(plan.init_noise_sigma, float(abs(plan.updates).max())))


def options(name):
    """Every single option of a scheduler, and some together."""
    values = {
        "sigmas": ("karras", "exponential", "beta"),
        "timestep_spacing": ("leading", "trailing", "linspace"),
        "rescale_betas_zero_snr": (True,),
    }
    singles = [ScheduleOptions(**{field: value}) for field in OFFERED[name] for value in values[field]]
    spaced = [each for each in singles if each.timestep_spacing] if "sigmas" in OFFERED[name] else []
    mixed = [each._replace(sigmas=sigmas) for each in spaced for sigmas in values["sigmas"]]
    return [ScheduleOptions(), *singles, *mixed]


def able(own, request):
    """Whether diffusers' scheduler takes the request at all."""
    try:
        schedulers.fresh(own, request.scheduler, request.steps, request.schedule)
    except InvalidRequest:
        return False
    return True


KINDS = [
    (name, prediction)
    for name, prediction in itertools.product(SCHEDULERS, ("epsilon", "v_prediction", "sample"))
    if prediction != "sample" or name not in ("EulerAncestral", "PNDM")  # which diffusers' do not take
]


@pytest.mark.parametrize(("name", "prediction"), KINDS)
def test_every_scheduler_with_every_option_goes_where_diffusers_goes(name, prediction):
    """All of them in one batch, whatever their options and steps."""
    own = model_scheduler(prediction_type=prediction)
    requests = [
        replace(IMAGE, scheduler=name, steps=steps, schedule=schedule)
        for schedule, steps in itertools.product(options(name), STEPS)
    ]
    requests = [request for request in requests if able(own, request)]
    images = [begin(own, request) for request in requests]
    assert not any(isinstance(image, denoise_state.OwnSteps) for image in images)
    for request, image, found in zip(requests, images, together(*images), strict=True):
        assert same(found, by_diffusers(own, request), rounding(image.plan)), str(request)


MODELS_OWN = [
    (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}),
    (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    (diffusers.DPMSolverMultistepScheduler, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}),
    (diffusers.UniPCMultistepScheduler, {"solver_order": 3}),
    (
        diffusers.UniPCMultistepScheduler,
        {"solver_type": "bh1", "predict_x0": False, "final_sigmas_type": "sigma_min"},
    ),
    (diffusers.PNDMScheduler, {"skip_prk_steps": False, "prediction_type": "epsilon"}),
    (
        diffusers.EulerDiscreteScheduler,
        {"interpolation_type": "log_linear", "final_sigmas_type": "sigma_min"},
    ),
    (diffusers.EulerDiscreteScheduler, {"timestep_type": "continuous", "use_karras_sigmas": True}),
    (diffusers.DDPMScheduler, {"variance_type": "fixed_large"}),
    (diffusers.DDPMScheduler, {"variance_type": "fixed_small_log"}),
    (diffusers.DDIMScheduler, {"set_alpha_to_one": False}),
]


@pytest.mark.parametrize(("kind", "changed"), MODELS_OWN, ids=str)
def test_what_a_model_configures_of_its_scheduler_is_batched_as_well(kind, changed):
    own = model_scheduler(kind, **changed)
    requests = [replace(IMAGE, steps=steps, seed=steps) for steps in (4, 7, 20)]
    images = [begin(own, request) for request in requests]
    assert not any(isinstance(image, denoise_state.OwnSteps) for image in images)
    for request, found in zip(requests, together(*images), strict=True):
        assert same(found, by_diffusers(own, request))


wanted = st.builds(
    ImageRequest,
    prompt=st.just(""),
    negative_prompt=st.just(""),
    width=st.just(SIDE * CELL),
    height=st.just(SIDE * CELL),
    steps=st.integers(1, 12),
    guidance=st.sampled_from([0.0, 1.0, 1.5, 4.0, 9.0]),
    seed=st.integers(0, 2**53 - 1),
    scheduler=st.sampled_from([None, *SCHEDULERS]),
    schedule=st.builds(
        ScheduleOptions,
        sigmas=st.none(),
        timestep_spacing=st.sampled_from([None, "leading", "trailing", "linspace"]),
        rescale_betas_zero_snr=st.sampled_from([None, True]),
    ),
    guidance_rescale=st.sampled_from([0.0, 0.4, 1.0]),
)
curved = wanted.filter(lambda each: each.scheduler and "sigmas" in OFFERED[each.scheduler]).flatmap(
    lambda each: st.sampled_from(["karras", "exponential", "beta"]).map(
        lambda sigmas: replace(each, schedule=each.schedule._replace(sigmas=sigmas))
    )
)
arrivals = st.lists(st.tuples(st.integers(0, 8), wanted | curved, st.integers(1, 20)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(arrivals=arrivals, clips=st.booleans(), padded=st.booleans())
def test_any_mix_goes_where_diffusers_takes_each_alone(arrivals, clips, padded):
    """Images that join late and leave early; a scheduler that clips steps by itself beside the others."""
    own = model_scheduler(
        diffusers.DDIMScheduler if clips else diffusers.EulerDiscreteScheduler, clip_sample=clips
    )
    arrivals = [each for each in arrivals if able(own, each[1])]
    images, tick, predict = [], 0, UNetBatch(unet, padded=padded)
    with torch.inference_mode():
        while tick <= 8 or any(not finished(image) for _, image, _ in images):
            images += [
                [request, begin(own, request), tick + patience]
                for arrival, request, patience in arrivals
                if arrival == tick
            ]
            going = [image for _, image, leaves in images if not finished(image) and tick < leaves]
            images = [each for each in images if each[1] in going or finished(each[1])]
            if going:
                advance(going, predict)
            tick += 1
    for request, image, _ in images:
        assert same(image.latents, by_diffusers(own, request), rounding(image.plan)), str(request)


CLIPPING = [
    (diffusers.DDIMScheduler, {"clip_sample": True}),
    (diffusers.DDPMScheduler, {"clip_sample": True}),
    (diffusers.LCMScheduler, {"clip_sample": True}),
    (diffusers.HeunDiscreteScheduler, {"clip_sample": True}),
    (diffusers.DDIMScheduler, {"thresholding": True}),
    (diffusers.DPMSolverMultistepScheduler, {"thresholding": True}),
    (diffusers.UniPCMultistepScheduler, {"thresholding": True}),
    (diffusers.DEISMultistepScheduler, {}),
    (diffusers.TCDScheduler, {}),
]


@pytest.mark.parametrize(("kind", "changed"), CLIPPING, ids=lambda each: getattr(each, "__name__", str(each)))
def test_what_is_not_linear_or_not_on_offer_takes_the_schedulers_own_steps_beside_others(kind, changed):
    own = model_scheduler(kind, **changed)
    requests = [replace(IMAGE, seed=1), replace(IMAGE, seed=2, scheduler="Euler", steps=5)]
    images = [begin(own, request) for request in requests]
    assert [isinstance(image, denoise_state.OwnSteps) for image in images] == [True, False]
    found, beside = together(*images)
    name = schedulers.name_of(own)
    assert same(
        found, by_diffusers(own, replace(requests[0], scheduler=name if name in SCHEDULERS else None))
    )
    assert same(beside, by_diffusers(own, requests[1]))


class ClipsInSecret(diffusers.EulerDiscreteScheduler):
    """Nothing in its configuration says so."""

    def step(self, *args, **kwargs):
        latents, *rest = super().step(*args, **kwargs)
        return (latents.clamp(-20, 20), *rest)


class RemembersInSecret(diffusers.EulerDiscreteScheduler):
    """Keeps a tensor where nobody looks for one."""

    secret = ()

    def step(self, *args, **kwargs):
        latents, *rest = super().step(*args, **kwargs)
        latents, self.secret = latents + sum(self.secret), (0.1 * latents,)
        return (latents, *rest)


class DrawsTwice(diffusers.EulerAncestralDiscreteScheduler):
    """Adds noise two times."""

    def step(self, *args, **kwargs):
        latents, *rest = super().step(*args, **kwargs)
        return (latents + torch.randn(latents.shape, dtype=latents.dtype), *rest)


@pytest.mark.parametrize("kind", [ClipsInSecret, RemembersInSecret, DrawsTwice])
def test_no_plan_is_made_of_steps_that_it_cannot_hold(monkeypatch, kind):
    monkeypatch.setattr(schedulers, "is_offered", lambda _: True)
    scheduler = model_scheduler(kind)
    scheduler.set_timesteps(5)
    assert step_plan.plan_of(scheduler) is None
    plain = model_scheduler(kind.__base__)
    plain.set_timesteps(5)
    assert step_plan.plan_of(plain) is not None


def test_plans_are_shared_by_images_of_one_schedule():
    own = model_scheduler()
    first, second, other = (
        begin(own, replace(IMAGE, seed=seed, steps=steps)) for seed, steps in [(1, 4), (2, 4), (2, 5)]
    )
    assert first.plan is second.plan
    assert other.plan is not first.plan


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("Euler", 0),
        ("DPMSolverMultistep", 1),
        ("UniPC", 3),
        ("PNDM", 3),
        ("Heun", 2),
        ("DPMSolverSinglestep", 2),
    ],
)
def test_only_what_a_later_step_reads_is_kept(name, slots):
    assert begin(model_scheduler(), replace(IMAGE, scheduler=name, steps=20)).plan.slots == slots


@pytest.mark.parametrize(
    "name", ["EulerAncestral", "DDPM", "DPMSolverMultistepSDE", "DPMSolverSinglestepSDE", "LCM"]
)
def test_a_call_that_failed_is_repeated_with_the_same_noise(name):
    own, request, calls = model_scheduler(), replace(IMAGE, scheduler=name), itertools.count()
    image = begin(own, request)

    def unsteady(samples, timesteps, conditions):
        if next(calls) % 2 == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unet(samples, timesteps, conditions)

    while not finished(image):
        try:
            advance([image], UNetBatch(unsteady))
        except torch.OutOfMemoryError:
            continue
    assert same(image.latents, by_diffusers(own, request))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_noise_is_drawn_as_diffusers_draws_it(dtype):
    shape, kinds = (
        (1, CHANNELS, SIDE, SIDE),
        (None, step_plan.MODEL_TYPE, torch.float32, step_plan.MODEL_TYPE),
    )
    noise, generator = StepNoise(5, shape, dtype, kinds), torch.Generator().manual_seed(5)
    drawn = [noise.first()]
    for _ in kinds:
        drawn.append(noise.current())
        assert noise.current() is drawn[-1]
        noise.taken()
    assert drawn.pop(1) is None
    wanted = [
        torch.randn(shape, generator=generator, dtype=kind) for kind in (dtype, dtype, torch.float32, dtype)
    ]
    assert all(torch.equal(one, other.float()) for one, other in zip(drawn, wanted, strict=True))


def test_latents_that_somebody_reads_do_not_change():
    images = [begin(model_scheduler(), replace(IMAGE, seed=seed, scheduler="UniPC")) for seed in range(3)]
    advance(images, UNetBatch(unet))
    read, predicted = [image.latents for image in images], [image.predicted() for image in images]
    copies = [each.clone() for each in (*read, *predicted)]
    together(*images)
    assert all(torch.equal(*pair) for pair in zip((*read, *predicted), copies, strict=True))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_no_number_stays_with_its_image(broken):
    own = model_scheduler()
    requests = [
        replace(IMAGE, seed=seed, scheduler=name)
        for seed, name in enumerate(["UniPC", "PNDM", "DDPM", "Heun"])
    ]
    images = [begin(own, request) for request in requests]
    advance(images, UNetBatch(unet))
    images[1].latents = images[1].latents * broken
    found = together(*images)
    assert not torch.isfinite(found[1]).any()
    for place in (0, 2, 3):
        assert same(found[place], by_diffusers(own, requests[place]))


def test_an_image_whose_own_scheduler_fails_leaves_the_others_as_they_were(monkeypatch):
    own = model_scheduler(diffusers.DDIMScheduler, clip_sample=True)
    images = [begin(own, replace(IMAGE, seed=1)), begin(own, replace(IMAGE, seed=2, scheduler="Euler"))]
    shares = UNetBatch(unet)(images)
    monkeypatch.setattr(images[0]._scheduler, "step", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        images[0].advance(shares[0])
    images[1].advance(shares[1])
    together(images[1])
    assert same(images[1].latents, by_diffusers(own, replace(IMAGE, seed=2, scheduler="Euler")))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)], ids=str)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_in_half_precision_an_image_is_nearer_to_that_of_float32_than_with_diffusers(name, dtype, most):
    own, ours, diffusers_own = model_scheduler(), [], []
    for seed in range(6):
        request = replace(IMAGE, scheduler=name, steps=10, seed=seed)
        exact = by_diffusers(own, request)
        (found,) = together(begin(own, request, dtype))
        assert found.dtype == torch.float32
        assert same(found, exact, most)
        ours.append(float((found - exact).square().mean()))
        diffusers_own.append(float((by_diffusers(own, request, dtype).float() - exact).square().mean()))
    assert sum(ours) < sum(diffusers_own)


def test_a_step_reads_nothing_back_from_the_device():
    """Tensors without data: whoever looks at a value fails."""
    own = model_scheduler()
    requests = [
        replace(IMAGE, scheduler=name, seed=seed, guidance=guidance, guidance_rescale=0.5)
        for seed, (name, guidance) in enumerate(itertools.product(SCHEDULERS, (1.0, 4.0)))
    ]
    images = [begin(own, request) for request in requests]
    batch = UNetBatch(unet, padded=True)._gathered(images, torch.device("cpu"))

    def bare(value):
        if isinstance(value, torch.Tensor):
            return value.to("meta")
        if isinstance(value, dict):
            return {name: bare(each) for name, each in value.items()}
        return batched_step.Rows(*map(bare, value)) if isinstance(value, tuple) else value

    nexts, predictions = batched_step.step(unet, batched_step.Batch(*map(bare, batch)), torch.float32)
    assert nexts.shape == (len(images), 1 + 3, CHANNELS, SIDE, SIDE)
    assert predictions.shape == (len(images), CHANNELS, SIDE, SIDE)


def test_a_padded_call_has_the_rows_of_the_next_size():
    rows = []

    def counted(samples, timesteps, conditions):
        rows.append((len(samples), len(timesteps), len(conditions["encoder_hidden_states"])))
        return unet(samples, timesteps, conditions)

    own = model_scheduler()
    requests = [replace(IMAGE, seed=seed, guidance=guidance) for seed, guidance in enumerate([4.0, 1.0, 4.0])]
    images = [begin(own, request) for request in requests]
    advance(images, UNetBatch(counted, padded=True))
    assert rows == [(padded_rows(5),) * 3]
    assert padded_rows(5) > 5
    for request, found in zip(requests, together(*images, padded=True), strict=True):
        assert same(found, by_diffusers(own, request))
