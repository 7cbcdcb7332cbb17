# SPDX-License-Identifier: Apache-2.0
"""Ray and the runtime accept every Serve config that the operator renders for a valid resource, in full."""

import hypothesis.strategies as st
import uvicorn
import yaml
from hypothesis import HealthCheck, assume, given, settings
from ray.serve._private.http_util import validate_http_proxy_callback_return
from ray.serve._private.utils import call_function_from_import_path
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema
from uvicorn.config import HTTP_PROTOCOLS

from sd_operator.api import parse, serving
from sd_operator.api.model import PRESETS, Scheduler
from sd_operator.api.serving import Limits
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.ray_variables import ray_variables
from sd_operator.builders.serve_config import serve_config
from sd_operator.errors import InvalidResource
from sd_operator.settings import Settings
from sd_runtime import config
from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.proxy import LostIngress
from sd_runtime.serving.http1 import Http1
from sd_runtime.serving.proxy_requests import ProxyRequests
from sd_runtime.serving.whole_body import WholeBody

RAY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
SIDES = st.integers(8, 512).map(lambda eighth: eighth * 8)


def optional(**fields):
    return st.fixed_dictionaries({}, optional=fields)


COMMITS = st.text("0123456789abcdef", min_size=40, max_size=40)
LORAS = st.one_of(
    st.fixed_dictionaries(
        {"uri": st.sampled_from(["hf://owner/name", "hf://owner/name/a.safetensors"]), "revision": COMMITS}
    ),
    st.fixed_dictionaries({"uri": st.sampled_from(["pvc://claim/a", "file:///models/a"])}),
).flatmap(
    lambda source: st.fixed_dictionaries(
        {"name": st.sampled_from(["ink", "oil-2", "a.b_c", "x" * 63])},
        optional={"strength": st.floats(-4, 4)},
    ).map(lambda more: source | more)
)

MODELS = st.one_of(
    st.fixed_dictionaries({"preset": st.sampled_from(sorted(PRESETS))}),
    st.fixed_dictionaries(
        {
            "uri": st.just("hf://owner/name"),
            "revision": COMMITS,
        },
        optional={"variant": st.just("fp16")},
    ),
    st.fixed_dictionaries(
        {"uri": st.sampled_from(["pvc://claim/a/b", "file:///models/a", "bundled://shapes"])}
    ),
).flatmap(
    lambda model: optional(
        loras=st.lists(LORAS, max_size=3, unique_by=lambda lora: lora["name"]),
        dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
        scheduler=st.sampled_from(sorted(Scheduler.__args__)),
        quantization=st.just("fp8"),
    ).map(lambda more: model | more)
)
REPLICAS = st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(
    lambda pair: {"min": min(pair), "max": max(pair)}
)
SPECS = st.fixed_dictionaries(
    {"model": MODELS, "replicas": REPLICAS},
    optional={
        "gpusPerReplica": st.integers(0, 1),
        "replicasPerGpu": st.integers(1, 8),
        "defaults": optional(
            width=SIDES, height=SIDES, steps=st.integers(1, 1000), guidance=st.floats(0, 50, allow_nan=False)
        ),
        "autoscaling": optional(
            targetOngoingRequests=st.integers(1, 1000),
            upscaleDelaySeconds=st.integers(0, 3600),
            downscaleDelaySeconds=st.integers(0, 86400),
        ),
        "optimizations": optional(
            channelsLast=st.booleans(), fuseQkv=st.booleans(), compile=st.booleans(), cudaGraphs=st.booleans()
        ),
        "warmup": optional(
            shapes=st.lists(st.fixed_dictionaries({"width": SIDES, "height": SIDES}), max_size=4)
        ),
        "provenance": optional(prompt=st.booleans()),
        "resultCache": optional(maxMebibytes=st.integers(0, 65536)),
        "batching": optional(maxBatchSize=st.integers(1, 64), maxWaitMilliseconds=st.integers(0, 1000)),
        "limits": optional(
            maxSide=SIDES,
            maxPixels=st.integers(4096, 16777216),
            maxSteps=st.integers(1, 1000),
            maxImages=st.integers(1, 16),
            maxPromptCharacters=st.integers(1, 32000),
            maxQueuedRequests=st.integers(1, 10000),
            timeoutSeconds=st.integers(1, 3600),
            coldStartTimeoutSeconds=st.integers(1, 7200),
        ),
    },
)


@st.composite
def resources(draw):
    body = {
        "apiVersion": "sdservice.dev/v1alpha1",
        "kind": "StableDiffusionService",
        "metadata": {"name": "imagine"},
        "spec": draw(SPECS),
    }
    try:
        return parse(body)
    except InvalidResource:
        assume(condition=False)


def dropped(sent, kept, path=""):
    """Paths that were sent and are not in what the schema kept."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [
            lost
            for key, value in sent.items()
            for lost in (dropped(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"])
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            lost
            for index, pair in enumerate(zip(sent, kept, strict=True))
            for lost in dropped(*pair, f"{path}[{index}]")
        ]
    return [] if sent == kept else [f"{path}: {sent!r} became {kept!r}"]


def lost_in_ray(sent):
    """What Ray's schemas drop; autoscaling stays a plain dict in the first and is read by one of its own."""
    lost = dropped(sent, ServeDeploySchema.model_validate(sent).model_dump(exclude_unset=True))
    for deployment in sent["applications"][0]["deployments"]:
        scaling = deployment.get("autoscaling_config", {})
        lost += dropped(scaling, AutoscalingConfig.model_validate(scaling).model_dump(exclude_unset=True))
    return lost


every_valid_resource = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@every_valid_resource
@given(resources())
def test_ray_accepts_it_and_drops_nothing(resource):
    assert lost_in_ray(serve_config(resource.spec)) == []


@every_valid_resource
@given(resources())
def test_the_runtime_accepts_it_and_drops_nothing(resource):
    (application,) = serve_config(resource.spec)["applications"]
    args = application["args"]
    assert dropped(args, RuntimeConfig.model_validate(args).model_dump(mode="json")) == []
    for deployment in application["deployments"]:
        live = deployment["user_config"]
        assert dropped(live, LiveConfig.model_validate(live).model_dump()) == []


@every_valid_resource
@given(resources())
def test_the_ray_service_carries_the_same_config(resource):
    carried = ray_service(resource, Settings())["spec"]["serveConfigV2"]
    assert yaml.safe_load(carried) == serve_config(resource.spec)


def test_a_misspelt_key_would_be_noticed(resource):
    sent = serve_config(resource().spec)
    sent["applications"][0]["deployments"][1]["autoscaling_config"][
        "target_num_ongoing_requests_per_replica"
    ] = 1
    assert lost_in_ray(sent) == [".target_num_ongoing_requests_per_replica"]


def test_ray_finds_what_the_proxies_add(resource, monkeypatch):
    """And its uvicorn, which Serve lets choose the parser of HTTP, takes ours."""
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    variables = ray_variables(resource().spec)
    found = call_function_from_import_path(variables[RAY_CALLBACK])
    assert [each.cls for each in validate_http_proxy_callback_return(found)] == [
        WholeBody,
        LostIngress,
        ProxyRequests,
    ]
    server = uvicorn.Config(app=None)
    server.load_app = lambda: None
    server.load()
    assert server.http_protocol_class is Http1


def test_both_sides_offer_the_same_schedulers_and_defaults(resource):
    assert Scheduler.__args__ == config.SchedulerName.__args__
    limits = Limits().model_dump(exclude={"max_queued_requests"})
    assert limits == config.Limits().model_dump()
    for ours in (serving.Batching, serving.Optimizations, serving.Provenance, serving.ResultCache):
        assert ours().model_dump() == getattr(config, ours.__name__)().model_dump()
