# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_runtime.engine.prompts.lora_tags import found_in, taken_out
from sd_runtime.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "rest", "tags"),
    [
        ("a cat", "a cat", []),
        ("a <cat>", "a <cat>", []),
        ("a cat<lora:ink>", "a cat", [("ink", None)]),
        ("<lora:ink:0.8> a <LORA: oil.v2 : -1 >cat", " a cat", [("ink", 0.8), ("oil.v2", -1)]),
    ],
    ids=str,
)
def test_tags_are_taken_out_with_their_strengths(text, rest, tags):
    assert taken_out(text) == (rest, tags)
    assert found_in(text) == bool(tags)


@pytest.mark.parametrize("parts", ["", ":1", "ink:", "ink:much", "ink:nan", "ink:4.5", "ink:1:1"])
def test_a_tag_of_another_form_is_refused(parts):
    with pytest.raises(
        InvalidRequest, match=f"^prompt: got a tag <lora:{parts}>: must be <lora:NAME> or"
    ) as caught:
        taken_out(f"secret <lora:{parts}>")
    assert caught.value.param == "prompt"
    assert "secret" not in str(caught.value)
