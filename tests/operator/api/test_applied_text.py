# SPDX-License-Identifier: Apache-2.0
import json

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sd_operator.kube.client import yaml_text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("Zoë \u202e \U0001f600")
@example("\u0000\u0007\u001f\u007f\u0080\u0085\u2028\ufeff\uffff")
@example('a \\ud83d\\ude00 "quoted" line\nbreak\ttab')
def test_what_is_applied_reads_the_same_as_yaml_and_as_json(text):
    body = {"metadata": {"annotations": {"note": text, text: "key"}}}
    assert json.loads(yaml_text(body)) == body
    assert yaml.safe_load(yaml_text(body)) == body
