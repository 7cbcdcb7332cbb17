# SPDX-License-Identifier: Apache-2.0
"""Dashboards and alerts use only metrics that exist."""

import ast
import json
import re

import pytest

from sd_operator.metrics import Metrics

OPERATOR_SERIES = {"Histogram": ("_bucket", "_sum", "_count"), "Counter": ("_total",), "Gauge": ("",)}
NAME = re.compile(r"\b(?:sdservice|ray_sd)_[a-z_]+\b")


def of_the_runtime(root):
    """Series by the calls that make them; `tests/runtime/test_faults.py` sees Ray export such names."""
    for name in ("engine_metrics", "ingress_metrics"):
        tree = ast.parse((root / f"serve_runtime/src/sd_runtime/observability/{name}.py").read_text())
        for call in ast.walk(tree):
            kind = getattr(getattr(call, "func", None), "id", None)
            if kind in OPERATOR_SERIES:
                yield from (f"ray_{call.args[0].value}{suffix}" for suffix in OPERATOR_SERIES[kind])


@pytest.fixture(scope="module")
def series(root):
    measured = Metrics()
    measured.watch(leads=bool, resync_age=float, waiting=int)
    described = {each.name: each.type for each in measured.registry.collect()}
    ours = {
        f"{name}{suffix}" for name, kind in described.items() for suffix in OPERATOR_SERIES[kind.capitalize()]
    }
    return ours | set(of_the_runtime(root))


@pytest.fixture(scope="module")
def monitored(chart):
    on = {"enabled": True}
    return chart(monitoring={"podMonitor": {**on, "services": True}, "alerts": on, "dashboards": on})


def expressions(monitored):
    (rule,) = monitored.raw("PrometheusRule")
    for group in rule["spec"]["groups"]:
        yield from (each["expr"] for each in group["rules"])
    for text in monitored.one("ConfigMap").data.values():
        dashboard = json.loads(text)
        yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
        yield from (each["query"] for each in dashboard["templating"]["list"])


LABELS = {"sdservice_dev_name"}  # what Prometheus makes of the label sdservice.dev/name


def test_only_series_that_exist_are_asked_for(monitored, series):
    asked = {name for text in expressions(monitored) for name in NAME.findall(text)} - LABELS
    assert asked
    assert asked - series == set()


def test_every_metric_is_on_the_dashboard(monitored, series):
    text = "".join(monitored.one("ConfigMap").data.values())
    families = {re.sub("_(bucket|sum|count|total)$", "", each) for each in series}
    assert {each for each in families if each not in text} == {
        "ray_sd_unet_rows",
        "ray_sd_texts",
        "ray_sd_http_cancelled",
    }


def test_every_alert_says_what_to_do(monitored):
    (rule,) = monitored.raw("PrometheusRule")
    for each in rule["spec"]["groups"][0]["rules"]:
        assert each["labels"]["severity"] in {"critical", "warning"}
        assert each["annotations"]["summary"]
        assert each["annotations"]["description"]
        assert each["for"]


def test_pods_of_operator_and_services_are_scraped(chart, monitored):
    operator, services = (each["spec"] for each in monitored.raw("PodMonitor"))
    selector = chart().one("Deployment").spec.selector.match_labels
    assert operator["selector"] == {"matchLabels": selector}
    assert services["namespaceSelector"] == {"any": True}
    assert "sdservice.dev/name" in services["podTargetLabels"]
    some = chart(watchNamespaces=["a"], monitoring={"podMonitor": {"services": True}}).raw("PodMonitor")
    assert some[0]["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
