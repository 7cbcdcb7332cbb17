# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.prompts.request_warnings import of_request

RED = ImageRequest("a red circle", guidance=4.0)


def codes(request, *, guided=True):
    return [(each.code, each.param) for each in of_request(request, guided=guided)]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"negative_prompt": "blue"}, []),
        ({"prompt": "a (red:1.2) circle"}, [("weights_ignored", "prompt")]),
        ({"prompt": "a (red:1.2) circle", "prompt_syntax": "weighted"}, []),
        ({"negative_prompt": "((blue))"}, [("weights_ignored", "negative_prompt")]),
        ({"prompt": "a <lora:ink:0.8>"}, [("lora_tag_ignored", "prompt")]),
        (
            {"negative_prompt": "<lora:ink>", "prompt_syntax": "weighted"},
            [("lora_tag_ignored", "negative_prompt")],
        ),
    ],
    ids=str,
)
def test_what_has_no_effect_is_named(change, found):
    assert codes(replace(RED, **change)) == found


def test_a_negative_prompt_without_guidance_is_named_alone():
    request = replace(RED, negative_prompt="((secret))", guidance=1.0)
    assert codes(request, guided=False) == [("negative_prompt_ignored", "negative_prompt")]
    (warning,) = of_request(request, guided=False)
    assert warning.message.startswith("negative_prompt: got 10 characters: they have no effect")
    assert "at a guidance of 1.0" in warning.message
    assert "secret" not in warning.message
    assert codes(RED, guided=False) == []


def test_rescaling_without_guidance_is_named():
    request = replace(RED, guidance_rescale=0.7)
    assert codes(request) == []
    assert codes(request, guided=False) == [("guidance_rescale_ignored", "guidance_rescale")]
