# SPDX-License-Identifier: Apache-2.0
"""Prompts of any length and with weights, compared with encodings that the tests compute from the definition."""

from dataclasses import replace

import pytest
import torch

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.pipelines import families
from sd_runtime.errors import InvalidRequest

LONG = " ".join(["a red circle on a white background"] * 20)  # 140 tokens
WORDS = [("red", 1.3), (" circle ", 1.0), ("on white", 0.5), (" ground", -0.25)]
RED = ImageRequest("a red circle on a white background", "", 64, 64, 3, 4.0, seed=1)
KINDS = ["model", "xl_model", "wide_model"]
FAMILIES = ["model", "xl_model"]


def parts(pipeline):
    """Tokenizer, encoder and the place of its states among all layers."""
    if hasattr(pipeline, "text_encoder_2"):
        first = (pipeline.tokenizer, pipeline.text_encoder, -2)
        return [first, (pipeline.tokenizer_2, pipeline.text_encoder_2, -2)]
    return [(pipeline.tokenizer, pipeline.text_encoder, None)]


def chunk_states(tokenizer, encoder, layer, tokens):
    """Weighted states of at most 75 tokens, given as (id, weight), and the pooled encoding."""
    ids = [tokenizer.bos_token_id, *(token for token, _ in tokens), tokenizer.eos_token_id]
    factors = [1.0, *(weight for _, weight in tokens), 1.0]
    pad = 77 - len(ids)
    output = encoder(torch.tensor([ids + [tokenizer.pad_token_id] * pad]), output_hidden_states=True)
    states = output[0] if layer is None else output.hidden_states[layer]
    if any(factor != 1 for factor in factors):
        mean = states.mean()
        states = states * torch.tensor(factors + [1.0] * pad)[None, :, None]
        states *= mean / states.mean()
    return states, output[0]


def by_hand(pipeline, sections, chunks):
    """Hidden states of sections of (text, weight), filled up to so many chunks; and the pooled encoding."""
    found = []
    for tokenizer, encoder, layer in parts(pipeline):
        cut = []
        for section in sections:
            tokens = [
                (token, weight)
                for text, weight in section
                for token in tokenizer(text, add_special_tokens=False)["input_ids"]
            ]
            cut += [tokens[start : start + 75] for start in range(0, max(1, len(tokens)), 75)]
        cut += [[]] * (chunks - len(cut))
        encoded = [chunk_states(tokenizer, encoder, layer, tokens) for tokens in cut]
        found.append(torch.cat([states for states, _ in encoded], dim=1))
        pooled = encoded[0][1]
    return torch.cat(found, dim=-1), pooled


def drawn_by_hand(runner, request, positive, negative, chunks):
    """Latents of the stock pipeline, told the encodings of sections."""
    pipeline = runner.model.pipeline
    with torch.inference_mode():
        embeds, pooled = by_hand(pipeline, positive, chunks)
        told = {"prompt_embeds": embeds}
        if request.guidance > 1:
            avoid, avoid_pooled = by_hand(pipeline, negative, chunks)
            told["negative_prompt_embeds"] = avoid
        if hasattr(pipeline, "text_encoder_2"):
            told["pooled_prompt_embeds"] = pooled
            if request.guidance > 1:
                told["negative_pooled_prompt_embeds"] = avoid_pooled
    return runner.stock(request, **told)


def same(one, other):
    return torch.isfinite(one).all() and (one - other).abs().max() <= 1e-4 * max(1.0, float(other.std()))


@pytest.mark.parametrize("kind", KINDS)
def test_one_chunk_is_bit_for_bit_what_the_pipeline_encodes(request, kind):
    model = request.getfixturevalue(kind)
    texts = ["a red circle", "", "x" * 75, "☃ naïve " * 3]
    found = model.family.encode([model.family.prompts(replace(RED, prompt=text))[0] for text in texts])
    pipeline = model.pipeline
    with torch.inference_mode():
        hidden, _, *more = pipeline.encode_prompt(
            prompt=texts, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    assert torch.equal(torch.cat([each["encoder_hidden_states"] for each in found]), hidden)
    if more:
        assert torch.equal(torch.cat([each["text_embeds"] for each in found]), more[0])


@pytest.mark.parametrize("kind", FAMILIES)
def test_padding_is_masked_where_the_pipeline_masks_it(request, kind, monkeypatch):
    """Stable Diffusion does where its encoder says so, SDXL never."""
    model = request.getfixturevalue(kind)
    pipeline = model.pipeline
    (usual,) = model.family.encode([model.family.prompts(RED)[0]])
    for _, encoder, _ in parts(pipeline):
        monkeypatch.setattr(encoder.config, "use_attention_mask", True, raising=False)
    (found,) = model.family.encode([model.family.prompts(RED)[0]])
    hidden, *_ = (
        pipeline.encode_prompt(RED.prompt, pipeline.device, 1, False)
        if kind == "model"
        else (usual["encoder_hidden_states"],)
    )
    assert torch.equal(found["encoder_hidden_states"], hidden)
    assert torch.equal(found["encoder_hidden_states"], usual["encoder_hidden_states"]) == (kind == "xl_model")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(
    ("prompt", "negative", "chunks"),
    [
        (LONG, "blue", 2),
        ("a red circle", LONG, 2),
        (LONG * 2, LONG, 4),
        ("x" * 76, "blue", 2),
        ("x" * 75, "y", 1),
    ],
    ids=["prompt", "negative", "both", "one too many", "just one"],
)
def test_every_token_counts_whatever_the_length(bench, request, kind, prompt, negative, chunks):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, prompt=prompt, negative_prompt=negative)
    stock = drawn_by_hand(runner, wanted, [[(prompt, 1)]], [[(negative, 1)]], chunks)
    (alone,) = runner.latents(wanted)
    mixed = runner.latents(RED, replace(RED, prompt=LONG * 2, seed=5), wanted)[-1]
    assert same(alone, stock)
    assert same(mixed, stock)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_beyond_the_first_chunk_shows(bench, request, kind):
    runner = bench(request.getfixturevalue(kind))
    one, other = runner.latents(replace(RED, prompt=LONG), replace(RED, prompt=LONG + " blue"))
    assert not same(one, other)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize(
    ("prompt", "sections"),
    [
        ("(red:1.3) circle [[(on white:0.605)]] (ground:-0.25)", [WORDS]),
        ("red BREAK (blue:0)", [[("red", 1)], [("blue", 0)]]),
        ("(" + LONG + ":1.2) BREAK end", [[(LONG, 1.2)], [("end", 1)]]),
        (r"\(red\)", [[("(red)", 1)]]),
    ],
    ids=["weights", "break", "long", "escaped"],
)
def test_weights_multiply_the_states_and_keep_their_mean(bench, request, kind, prompt, sections):
    runner = bench(request.getfixturevalue(kind))
    wanted = replace(RED, prompt=prompt, negative_prompt="(blue:1.4)", prompt_syntax="weighted")
    chunks = len(runner.model.family.prompts(wanted)[0])
    stock = drawn_by_hand(runner, wanted, sections, [[("blue", 1.4)]], chunks)
    assert same(runner.latents(RED, wanted)[-1], stock)


def test_without_weights_both_syntaxes_are_one(model):
    plain = model.family.prompts(RED)
    assert model.family.prompts(replace(RED, prompt_syntax="weighted")) == plain


def test_pictures_of_different_lengths_do_not_share_a_call(bench, model, unet_calls):
    rows = unet_calls(model)
    long = replace(RED, prompt=LONG)
    bench(model).latents(RED, long, replace(RED, seed=2), replace(RED, prompt="x" * 100))
    assert rows == [4] * 6


def test_what_weights_make_of_a_prompt_is_cached_apart(bench, model, observer):
    runner = bench(model, observer)
    weighted = replace(RED, prompt="(red:1.3) circle", guidance=1.0)
    runner.latents(weighted, replace(weighted, prompt_syntax="weighted"), weighted)
    assert observer.coded == [0, 2]


def test_an_endless_prompt_is_refused(model):
    with pytest.raises(
        InvalidRequest, match="negative_prompt: got 129 chunks of 75 tokens: must be at most 128"
    ):
        model.family.prompts(replace(RED, negative_prompt="x" * (128 * 75 + 1)))


def test_a_shorter_encoder_gets_shorter_chunks(model, monkeypatch):
    monkeypatch.setattr(model.pipeline.text_encoder.config, "max_position_embeddings", 12)
    family = families.StableDiffusion(model.pipeline)
    (first, second), _ = (prompt.encoders[0] for prompt in family.prompts(replace(RED, prompt="x" * 11)))
    assert (len(first.ids), first.used, len(second.ids), second.used) == (12, 12, 12, 3)


def test_a_tokenizer_that_needs_fewer_chunks_gets_empty_ones(xl_model, monkeypatch):
    monkeypatch.setattr(xl_model.pipeline.text_encoder_2.config, "max_position_embeddings", 12)
    prompt, negative = families.StableDiffusionXL(xl_model.pipeline).prompts(replace(RED, prompt="x" * 11))
    assert [[chunk.used for chunk in chunks] for chunks in prompt.encoders] == [[13, 2], [12, 3]]
    assert [[chunk.used for chunk in chunks] for chunks in negative.encoders] == [[2, 2], [2, 2]]
