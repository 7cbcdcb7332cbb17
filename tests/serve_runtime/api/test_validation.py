# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
from pydantic import ValidationError

from sd_runtime.api.schemas import MAX_SEED, GenerationBody, ImagineQuery
from sd_runtime.api.validation import RequestPolicy, any_seed, from_body, from_imagine
from sd_runtime.config import Defaults, Limits
from sd_runtime.engine.schedule_options import ScheduleOptions
from sd_runtime.errors import InvalidRequest

TERMS = RequestPolicy(
    Limits(), Defaults(width=64, height=64, steps=15, guidance=4.0), "bundled://shapes", ("ink",)
)


def imagine(**query):
    return from_imagine(ImagineQuery(prompt=query.pop("prompt", "a red circle"), **query), TERMS, seed=7)


def generate(**body):
    return from_body(GenerationBody(prompt=body.pop("prompt", "a red circle"), **body), TERMS, seed=7)


def test_defaults_fill_what_a_request_does_not_say():
    request = imagine()
    assert (request.width, request.height, request.steps, request.guidance) == (64, 64, 15, 4.0)
    assert (request.seed, request.count) == (7, 1)


def test_a_request_wins_over_the_defaults():
    request = imagine(img_size=128, steps=3, guidance=0.0, seed=0, negative_prompt="blue")
    assert (request.width, request.height, request.steps, request.guidance) == (128, 128, 3, 0.0)
    assert (request.seed, request.negative_prompt) == (0, "blue")


def test_size_of_the_openai_route():
    assert (generate(size="128x64").width, generate(size="128x64").height) == (128, 64)
    assert generate(size="auto").width == 64


@pytest.mark.parametrize(
    ("build", "wrong", "param", "says"),
    [
        (imagine, {"prompt": ""}, "prompt", "0 characters"),
        (imagine, {"prompt": " \n"}, "prompt", "all blank"),
        (
            generate,
            {"prompt": "a \ud800"},
            "prompt",
            "got 3 characters with half of a surrogate pair",
        ),
        (generate, {"negative_prompt": "\udfff"}, "negative_prompt", "must be valid Unicode"),
        (imagine, {"prompt": "x" * 2001}, "prompt", "got 2001 characters: must be at most 2000"),
        (imagine, {"img_size": 7}, "img_size", "got 7: must be a multiple of 8 from 64 to 1024"),
        (imagine, {"img_size": 0}, "img_size", "got 0"),
        (imagine, {"img_size": -8}, "img_size", "got -8"),
        (imagine, {"img_size": 80000}, "img_size", "got 80000"),
        (imagine, {"steps": 0}, "steps", "must be from 1 to 100"),
        (imagine, {"steps": 101}, "steps", "must be from 1 to 100"),
        (imagine, {"guidance": 51.0}, "guidance", "must be from 0 to 50"),
        (imagine, {"guidance": float("nan")}, "guidance", "got nan"),
        (generate, {"size": "64"}, "size", "must be WIDTHxHEIGHT"),
        (generate, {"size": "64xx64"}, "size", "must be WIDTHxHEIGHT"),
        (generate, {"size": "²x64"}, "size", "must be WIDTHxHEIGHT"),
        (generate, {"size": "64x100"}, "size", "got 100: must be a multiple of 8"),
        (generate, {"n": 5}, "n", "got 5: must be from 1 to 4"),
        (generate, {"num_inference_steps": 0}, "num_inference_steps", "must be from 1"),
        (generate, {"guidance_scale": -1.0}, "guidance_scale", "must be from 0"),
        (generate, {"model": "dall-e-3"}, "model", "got 'dall-e-3': must be 'bundled://shapes' or absent"),
        (generate, {"lora": ["x" * 200]}, "lora", "must be one of ink"),
        (generate, {"seed": MAX_SEED, "n": 2}, "seed", "seed + n - 1 must be at most"),
    ],
)
def test_wrong_request_names_field_value_and_rule(build, wrong, param, says):
    with pytest.raises(InvalidRequest) as caught:
        build(**wrong)
    assert caught.value.param == param
    assert says in str(caught.value)


def test_the_served_model_may_be_named():
    for name in (None, "bundled://shapes"):
        assert generate(model=name).count == 1


def test_pixels_are_bounded_beside_sides():
    few = replace(TERMS, limits=Limits(max_pixels=4096))
    with pytest.raises(InvalidRequest, match="128x64 = 8192 pixels: must be at most 4096"):
        from_body(GenerationBody(prompt="a", size="128x64"), few, 0)


def test_previews_need_a_stream():
    assert generate(partial_images=0).output.previews == 0
    with pytest.raises(InvalidRequest, match="partial_images: got 2: must be 0 unless stream is true"):
        generate(partial_images=2)
    assert generate(partial_images=2, stream=True).output.previews == 2


def test_who_chose_the_seed_is_noted():
    assert (generate(seed=0).seeded, generate().seeded, imagine(seed=0).seeded) == (True, False, True)


def test_messages_never_hold_the_prompt():
    with pytest.raises(InvalidRequest) as caught:
        imagine(prompt="secret" * 1000)
    assert "secret" not in str(caught.value)


def test_any_seed_is_one_a_client_may_send_back():
    assert all(0 <= any_seed() <= MAX_SEED for _ in range(1000))


def test_the_syntax_of_prompts_is_the_requests_then_the_services():
    weighted = replace(TERMS, defaults=Defaults(prompt_syntax="weighted"))
    assert from_body(GenerationBody(prompt="a"), weighted, 0).prompt_syntax == "weighted"
    assert from_imagine(ImagineQuery(prompt="a"), weighted, 0).prompt_syntax == "weighted"
    assert from_body(GenerationBody(prompt="a", prompt_syntax="plain"), weighted, 0).prompt_syntax == "plain"
    assert generate().prompt_syntax == "plain"


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_weight_out_of_bounds_is_refused_where_weights_are_read(name):
    assert generate(**{name: "(a:99)"})
    with pytest.raises(InvalidRequest, match=f"{name}: got a weight of 99: must be a number from -10 to 10"):
        generate(**{name: "(a:99)"}, prompt_syntax="weighted")


@pytest.mark.parametrize("build", [imagine, generate])
def test_minus_one_is_a_random_seed(build):
    assert (build(seed=-1).seed, build(seed=-1).seeded) == (7, False)
    assert (build(seed=0).seed, build(seed=0).seeded) == (0, True)
    with pytest.raises(ValidationError, match="greater than or equal to -1"):
        build(seed=-2)


def test_options_reach_the_engine():
    request = generate(
        sigmas="karras",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        guidance_rescale=0.7,
        clip_skip=1,
    )
    assert request.schedule == ScheduleOptions("karras", "trailing", rescale_betas_zero_snr=True)
    assert (request.guidance_rescale, request.clip_skip) == (0.7, 1)
    assert generate().schedule == ScheduleOptions()


@pytest.mark.parametrize(
    ("lora", "names", "strengths"),
    [
        ("ink", ("ink",), ()),
        (["oil", "ink"], ("oil", "ink"), ()),
        ({"name": "ink", "strength": 0.5}, ("ink",), (("ink", 0.5),)),
        (["oil", {"name": "ink", "strength": -1}], ("oil", "ink"), (("ink", -1.0),)),
        (
            [{"name": "oil", "strength": 2}, {"name": "ink", "strength": 0}],
            ("oil", "ink"),
            (("ink", 0), ("oil", 2)),
        ),
        ([{"name": "ink"}], ("ink",), ()),
    ],
    ids=str,
)
def test_a_lora_is_a_name_or_a_name_and_a_strength(lora, names, strengths):
    policy = replace(TERMS, loras=("ink", "oil"))
    request = from_body(GenerationBody(prompt="a", lora=lora), policy, 0)
    assert (request.loras, request.lora_strengths) == (names, strengths)


@pytest.mark.parametrize(
    "lora",
    [
        {"name": "ink", "strength": 5},
        {"strength": 1},
        {"name": "ink", "weight": 1},
        [{"name": "ink", "strength": "1"}],
        3,
    ],
    ids=str,
)
def test_a_lora_that_is_neither_is_refused(lora):
    with pytest.raises(ValidationError, match="lora"):
        generate(lora=lora)


def test_a_lora_is_named_once_with_one_strength():
    with pytest.raises(InvalidRequest, match="lora: got a name twice"):
        generate(lora=["ink", {"name": "ink", "strength": 0.5}])


def test_an_option_that_the_named_scheduler_lacks_is_refused():
    with pytest.raises(
        InvalidRequest,
        match=r"sigmas: got 'karras': the scheduler DDIM has no such option; schedulers with it: ",
    ) as told:
        generate(scheduler="DDIM", sigmas="karras")
    assert told.value.param == "sigmas"
    assert generate(scheduler="Euler", sigmas="karras").schedule.sigmas == "karras"


def test_a_weighted_prompt_names_loras_in_tags():
    policy = replace(TERMS, loras=("ink", "oil"), defaults=Defaults(prompt_syntax="weighted"))
    body = GenerationBody(prompt="a <lora:ink:0.8>cat<lora:oil>", lora=[])
    request = from_body(body, policy, 0)
    assert (request.prompt, request.loras, request.lora_strengths) == (
        "a cat",
        ("ink", "oil"),
        (("ink", 0.8),),
    )
    query = ImagineQuery(prompt="a cat <lora:oil:-1>")
    assert from_imagine(query, policy, 0).lora_strengths == (("oil", -1.0),)
    twice = GenerationBody(prompt="a <lora:ink>", lora="ink")
    with pytest.raises(InvalidRequest, match="lora: got a name twice"):
        from_body(twice, policy, 0)
    with pytest.raises(InvalidRequest, match="lora: got 'gouache': must be one of ink, oil"):
        from_imagine(ImagineQuery(prompt="a <lora:gouache>"), policy, 0)
    assert generate(prompt="a <lora:ink>").prompt == "a <lora:ink>"
