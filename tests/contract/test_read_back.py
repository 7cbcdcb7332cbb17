# SPDX-License-Identifier: Apache-2.0
"""A config that Ray accepted reads back without a difference, by Ray's own code, from the PUT to the response of the GET."""

import json

import pytest
import yaml
from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.schema import ServeDeploySchema, _deployment_info_to_schema

from sd_operator.api import parse
from sd_operator.builders.serve_config import serve_config
from sd_operator.ray.serve_diff import differences
from sd_operator.ray.serve_state import read


def taken_over(sent):
    """What a GET tells after this was PUT."""
    application = ServeDeploySchema.model_validate(sent).applications[0]
    before = {each.name: deployment() for each in application.deployments}
    effective = override_deployment_info(before, application)
    found = {
        "status": "RUNNING",
        "deployed_app_config": as_json(application),
        "deployments": {
            name: {"status": "HEALTHY", "deployment_config": as_json(_deployment_info_to_schema(name, info))}
            for name, info in effective.items()
        },
    }
    return read({"applications": {"imagine": found}})


def deployment():
    """One as the code of an application declares it."""
    return DeploymentInfo(
        deployment_config=DeploymentConfig(),
        replica_config=ReplicaConfig.create(lambda: None),
        start_time_ms=0,
        deployer_job_id="",
    )


def as_json(model):
    return json.loads(model.model_dump_json(exclude_unset=True))


def test_every_example_reads_back_as_it_was_sent(root):
    for path in sorted((root / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            sent = serve_config(parse(body).spec)
            assert differences(sent, taken_over(sent)) == [], path.name


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (lambda application: application, "tpyo"),
        (lambda application: application["deployments"][1], "max_concurrent_queries"),
        (lambda application: application["deployments"][1]["autoscaling_config"], "target_num"),
    ],
    ids=["application", "deployment", "autoscaling"],
)
def test_a_key_that_ray_drops_without_a_word_is_named(resource, place, key):
    sent = serve_config(resource().spec)
    place(sent["applications"][0])[key] = 3
    (found,) = differences(sent, taken_over(sent))
    assert str(found).endswith(f"{key}: the spec has 3, Ray does not accept this key")
