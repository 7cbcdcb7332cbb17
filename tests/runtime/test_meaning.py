# SPDX-License-Identifier: Apache-2.0
"""The bundled model over HTTP: images match their prompts, measured from their pixels alone."""

import io

import pytest
from PIL import Image

from sd_training.captions import article, prompt
from sd_training.classifier import classify
from sd_training.shapes import KINDS, OUTLINES, Kind


@pytest.fixture(scope="module")
def seen(http):
    """What the picture of a query shows."""

    def draw(text, seed, **query):
        answer = http.get("/imagine", params={"prompt": text, "seed": seed, **query})
        assert answer.status_code == 200, answer.text
        with Image.open(io.BytesIO(answer.content)) as image:
            return classify(image)

    return draw


def test_a_red_circle_is_red_and_round(seen):
    shown = [seen("a red circle", seed).kind for seed in range(4)]
    assert {(kind.colour, kind.shape) for kind in shown} == {("red", "circle")}


def test_pictures_show_what_their_prompts_say(seen):
    wanted = KINDS[5::7]
    shown = [seen(prompt(kind), seed).kind or Kind("", "", "") for seed, kind in enumerate(wanted)]
    pairs = list(zip(wanted, shown, strict=True))
    assert {kind.shape for kind in wanted} == set(OUTLINES)
    assert [pair for pair in pairs if pair[0].colour != pair[1].colour] == []
    assert [pair for pair in pairs if pair[0].background != pair[1].background] == []
    assert len([pair for pair in pairs if pair[0].shape != pair[1].shape]) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "purple heart",
        "A PHOTO of a large purple heart, white background",
        "masterpiece 🚀 ein schönes Bild: a purple heart on a white background, 4k",
    ],
)
def test_wording_changes_nothing_of_the_meaning(seen, text):
    kind = seen(text, 11).kind
    assert (kind.colour, kind.shape) == ("purple", "heart")


@pytest.mark.parametrize("guidance", [1, 2, 7.5, 10])
def test_any_guidance_shows_the_shape(seen, guidance):
    kind = seen("a green triangle on a black background", 5, guidance=guidance).kind
    assert kind == Kind("triangle", "green", "black")


def test_a_negative_prompt_is_avoided(seen):
    """Only guidance can do that: without it the negative prompt is never looked at."""
    kept = []
    for seed, shape in enumerate(OUTLINES):
        before = seen(article(shape), seed).kind
        after = seen(article(shape), seed, negative_prompt=before.colour).kind
        kept += [shape] if after and after.colour == before.colour else []
    assert len(kept) <= 1


@pytest.mark.parametrize("side", [64, 72, 128, 200, 256])
def test_every_size_shows_the_shape(seen, side):
    kind = seen("a blue square on a white background", 3, img_size=side).kind
    assert kind == Kind("square", "blue", "white")
