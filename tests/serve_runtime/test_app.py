# SPDX-License-Identifier: Apache-2.0
"""The application graph. No test here starts Ray."""

import pytest
from pydantic import ValidationError

from sd_runtime.app import build_app
from sd_runtime.config import RuntimeConfig

ARGS = {"model": {"uri": "bundled://shapes"}, "warmup": [{"width": 64, "height": 64}]}


def test_ingress_stands_in_front_of_the_model():
    ingress = build_app(ARGS)._bound_deployment
    bound_model, config = ingress.init_args
    model = bound_model._bound_deployment
    assert (ingress.name, model.name) == ("ingress", "model")
    assert config == RuntimeConfig.model_validate(ARGS)
    assert model.init_args == (config,)


def test_without_a_serve_config_batches_can_fill_and_the_queue_is_bounded():
    ingress = build_app(ARGS)._bound_deployment
    model = ingress.init_args[0]._bound_deployment
    assert model.max_ongoing_requests > 8
    assert model.max_queued_requests > 0
    assert ingress.ray_actor_options["num_cpus"] == 0
    assert ingress.max_ongoing_requests > model.max_ongoing_requests + model.max_queued_requests


def test_args_that_are_no_runtime_config_are_refused():
    with pytest.raises(ValidationError, match="model"):
        build_app({"modle": {"uri": "bundled://shapes"}})
