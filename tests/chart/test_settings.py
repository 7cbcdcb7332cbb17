# SPDX-License-Identifier: Apache-2.0
"""Every setting of the operator has a chart value, and both have the same default."""

import pytest

from sd_operator.settings import Settings

PREFIX = "SDSERVICE_"
OF_THE_POD = {"namespace", "pod_name"}
ELSEWHERE = {"dashboard_url", "proxy_url"}
"""What names the Services of Ray: by default they are right inside a cluster; `ray.throughApiServer` empties the first."""
OTHERWISE = {"log_format": "json", "leader_election": True}
"""Where the chart's default is not the operator's: logs of pods are read by machines first, and a rollout has two pods."""


def variables(objects):
    (container,) = objects.one("Deployment").spec.template.spec.containers
    return {each.name.removeprefix(PREFIX).lower(): each for each in container.env}


@pytest.fixture
def settings(monkeypatch):
    """Settings as the operator reads them in the pod."""

    def read(objects):
        for name, each in variables(objects).items():
            monkeypatch.setenv(PREFIX + name.upper(), each.value or "of-the-pod")
            if each.value == "":
                monkeypatch.setenv(PREFIX + name.upper(), "")
        return Settings()

    return read


def test_every_setting_is_a_variable_and_every_variable_a_setting(chart):
    assert set(variables(chart())) | ELSEWHERE == set(Settings.model_fields)


def test_defaults_are_those_of_the_operator(chart, settings):
    found = settings(chart())
    given = {name: getattr(found, name) for name in Settings.model_fields if name not in OF_THE_POD}
    wanted = {name: getattr(Settings.model_construct(), name) for name in given} | OTHERWISE
    assert given == wanted


def test_every_value_arrives(chart, everything, settings):
    found = settings(chart(**everything))
    assert found.watch_namespaces == ("team-a", "team-b")
    assert found.runtime_repository == "registry.example/team/worker"
    assert found.runtime_tag == "4.5.6"
    assert found.preload_priority_class == "low"
    assert found.gpu_node_labels == ("accelerator", "example.org/pool=a100")
    assert found.node_status_max_images == -1
    assert (found.warm_priority_class, found.warm_image) == ("warm", "registry.example/pause:3")
    assert found.node_cache_directory == "/var/cache/weights"
    assert (found.workers, found.passes_per_second, found.request_timeout_seconds) == (4, 20, 10)
    assert (found.resync_seconds, found.full_resync_seconds) == (60, 3600)
    assert (found.retry_base_seconds, found.retry_cap_seconds) == (1, 30)
    assert found.dashboard_url == ""
    assert found.kuberay_namespace == "kuberay-system"
    assert found.api_server_ports == (16443,)
    assert found.log_format == "plain"


def test_identity_is_that_of_the_pod(chart):
    found = variables(chart())
    assert found["namespace"].value_from.field_ref.field_path == "metadata.namespace"
    assert found["pod_name"].value_from.field_ref.field_path == "metadata.name"
