# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from sd_runtime import prefetch


def test_weights_are_fetched(lines):
    assert prefetch.main([json.dumps({"model": {"uri": "bundled://shapes"}})]) == 0
    assert "the weights of bundled://shapes are in the cache" in [each["message"] for each in lines()]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model": {"uri": "file:///no/such/folder"}}, "there is no folder"),
        (
            {
                "model": {"uri": "bundled://shapes"},
                "loras": [{"name": "ink", "uri": "file:///no/ink", "strength": 1}],
            },
            "loras: ink",
        ),
        ({}, "model"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(config, says, lines):
    assert prefetch.main([json.dumps(config)]) == 1
    (line,) = [each["message"] for each in lines() if each["level"] == "error"]
    assert says in line
    assert "\n" not in line


def test_usage(caplog):
    assert prefetch.main([]) == 2
    assert "usage" in caplog.text
