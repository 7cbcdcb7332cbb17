# SPDX-License-Identifier: Apache-2.0
import copy
import json

import pytest

from sd_operator.builders.serve_config import serve_config
from sd_operator.ray.serve_diff import differences
from sd_operator.ray.serve_state import DeploymentState, ServeState, read

DEFAULTS = {"health_check_period_s": 10.0, "graceful_shutdown_wait_loop_s": 2.0}


@pytest.fixture
def asked(resource):
    return serve_config(resource().spec)


def running(asked, change=lambda _: None):
    """Ray running a config, with defaults filled in."""
    config = copy.deepcopy(asked)
    change(config["applications"][0])
    application = config["applications"][0]
    deployments = {
        each["name"]: DeploymentState("HEALTHY", "", 1, 1, {**DEFAULTS, **each})
        for each in application["deployments"]
    }
    server = {
        "proxy_location": config["proxy_location"],
        "http_options": {**config["http_options"], "ssl": None},
    }
    return ServeState("RUNNING", "", deployments, application, server)


def told(asked, change):
    return [str(each) for each in differences(asked, running(asked, change))]


def test_defaults_of_serve_are_no_difference(asked):
    assert told(asked, lambda _: None) == []


def test_a_differing_key_is_named_with_both_values(asked):
    def change(application):
        application["deployments"][1]["user_config"]["limits"]["max_steps"] = 1

    assert told(asked, change) == [
        "deployments.model.user_config.limits.max_steps: the spec has 100, Ray runs 1"
    ]


def test_a_key_that_ray_does_not_take_is_named(asked):
    def change(application):
        del application["deployments"][1]["max_queued_requests"]
        del application["args"]["warmup"]

    assert told(asked, change) == [
        "args.warmup: the spec has [], Ray does not accept this key",
        "deployments.model.max_queued_requests: the spec has 64, Ray does not accept this key",
    ]


def test_http_options_are_compared(asked):
    state = running(asked)
    state.server["http_options"]["port"] = 1
    assert [str(each) for each in differences(asked, state)] == [
        "http_options.port: the spec has 8000, Ray runs 1"
    ]


def test_numbers_are_compared_by_value_and_long_values_cut(asked):
    def change(application):
        application["deployments"][0]["max_ongoing_requests"] = 1000.0
        application["import_path"] = "x" * 200

    (difference,) = told(asked, change)
    assert difference.startswith('import_path: the spec has "sd_runtime.app:build_app", Ray runs "xxx')
    assert len(difference) < 150


def test_deployments_that_are_not_built_yet_are_left_out(asked):
    assert differences(asked, ServeState("DEPLOYING", "", {}, asked["applications"][0])) == []


def test_misspelt_keys_show_as_a_real_ray_drops_them(root):
    """The config as it was PUT; the recorded answer is Ray's own, options of nested keys included."""
    answer = json.loads((root / "tests/data/serve_answers.json").read_text())["misspelt keys"]
    state = read(answer)
    sent = {"applications": [copy.deepcopy(state.config)]}
    model = sent["applications"][0]["deployments"][1]
    assert model["name"] == "model"
    model["max_ongoing_reqests"] = 3
    assert [str(each) for each in differences(sent, state)] == [
        "deployments.model.autoscaling_config.target_num: the spec has 3, Ray does not accept this key",
        "deployments.model.max_ongoing_reqests: the spec has 3, Ray does not accept this key",
    ]
