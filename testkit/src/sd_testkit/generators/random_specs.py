# SPDX-License-Identifier: Apache-2.0
"""Random specs of a StableDiffusionService.

Each part keeps its own bounds, but rules between parts may be broken.

Property tests use them in two ways. Some send them through the rules of the API server and of the operator, and
compare. Others drop invalid specs and examine the result of the rest.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st

from sd_testkit.json_types import Json

_NAMES = ("gpu", "a", "l4-spot", "x" * 15)
_LABELS = st.dictionaries(
    st.sampled_from(["pool", "example.org/zone"]), st.sampled_from(["a", "b"]), max_size=2
)
_RESOURCES = st.fixed_dictionaries(
    {"cpu": st.sampled_from(["4", "500m", "0.5", 2]), "memory": st.sampled_from(["16Gi", "512Mi"])}
)
_TOLERATIONS = st.lists(
    st.one_of(
        st.just({"operator": "Exists"}),
        st.fixed_dictionaries(
            {"key": st.sampled_from(["spot", "nvidia.com/gpu"]), "value": st.sampled_from(["true", "yes"])},
            optional={
                "effect": st.sampled_from(["NoSchedule", "NoExecute"]),
                "tolerationSeconds": st.integers(0, 600),
            },
        ),
    ),
    max_size=3,
)
_TERM = st.fixed_dictionaries(
    {
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {
                    "key": st.sampled_from(["zone", "pool"]),
                    "operator": st.sampled_from(["In", "NotIn"]),
                    "values": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
                }
            ),
            min_size=1,
            max_size=2,
        )
    }
)
_AFFINITY = st.fixed_dictionaries(
    {},
    optional={
        "nodeAffinity": st.fixed_dictionaries(
            {},
            optional={
                "requiredDuringSchedulingIgnoredDuringExecution": st.fixed_dictionaries(
                    {"nodeSelectorTerms": st.lists(_TERM, min_size=1, max_size=3)}
                ),
                "preferredDuringSchedulingIgnoredDuringExecution": st.lists(
                    st.fixed_dictionaries({"weight": st.integers(1, 100), "preference": _TERM}), max_size=2
                ),
            },
        ),
        "podAntiAffinity": st.sampled_from(
            [
                {},
                {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", "labelSelector": {}}
                    ]
                },
            ]
        ),
    },
)
_PLACEMENT: dict[str, st.SearchStrategy[Any]] = {
    "resources": _RESOURCES,
    "nodeSelector": _LABELS,
    "tolerations": _TOLERATIONS,
    "affinity": _AFFINITY,
    "priorityClassName": st.just("high"),
}


def worker_groups(
    more: Mapping[str, st.SearchStrategy[Any]] = MappingProxyType({}),
) -> st.SearchStrategy[list[Json]]:
    """Return one to four groups. Their bounds are small, so that they often just reach or just miss the demand."""
    group = st.fixed_dictionaries(
        {"name": st.sampled_from(_NAMES)},
        optional={
            "minReplicas": st.integers(0, 6),
            "maxReplicas": st.integers(1, 6),
            "gpusPerWorker": st.integers(0, 8),
            **more,
        },
    )
    return st.lists(group, min_size=1, max_size=4, unique_by=lambda each: each["name"])


def capacities() -> st.SearchStrategy[Json]:
    """Return a spec in which only replicas, GPUs and the bounds of worker groups vary."""
    return st.fixed_dictionaries(
        {
            "model": st.just({"preset": "shapes"}),
            "replicas": replicas(),
            "gpusPerReplica": st.integers(0, 1),
            "replicasPerGpu": st.sampled_from([1, 1, 1, 2, 3]),
            "workerGroups": worker_groups(),
        }
    )


def replicas() -> st.SearchStrategy[Json]:
    """Return ordered bounds of the model replicas."""
    pair = st.tuples(st.integers(0, 20), st.integers(1, 20))
    return pair.map(lambda bounds: {"min": min(bounds), "max": max(bounds)})


def specs() -> st.SearchStrategy[Json]:
    """Return a spec in which every field that reaches the RayCluster varies."""
    redis = st.fixed_dictionaries(
        {"address": st.just("redis:6379")},
        optional={"passwordSecretRef": st.just({"name": "redis", "key": "password"})},
    )
    stores = st.one_of(
        st.fixed_dictionaries({"store": st.just("redis"), "redis": redis}),
        st.fixed_dictionaries({"store": st.just("volume")}, optional={"volume": st.just({"size": "2Gi"})}),
    )
    incremental = st.fixed_dictionaries(
        {"gatewayClassName": st.just("istio")},
        optional={
            "stepSizePercent": st.integers(1, 100),
            "intervalSeconds": st.integers(1, 3600),
            "maxSurgePercent": st.integers(1, 100),
        },
    )
    return st.fixed_dictionaries(
        {
            "model": st.sampled_from(
                [
                    {"preset": "sd21"},
                    {"uri": "pvc://claim/a"},
                    {"preset": "sd15", "tokenSecretRef": {"name": "hf"}},
                ]
            ),
            "replicas": replicas(),
        },
        optional={
            "gpusPerReplica": st.integers(0, 1),
            "replicasPerGpu": st.sampled_from([1, 1, 2, 3]),
            "gpuResourceName": st.sampled_from(["amd.com/gpu", "nvidia.com/mig-1g.5gb"]),
            "workerGroups": worker_groups(
                {
                    "capacityType": st.sampled_from(["on-demand", "spot"]),
                    "runtimeClassName": st.just("nvidia"),
                    **_PLACEMENT,
                }
            ),
            "head": st.one_of(
                st.fixed_dictionaries({}, optional={**_PLACEMENT, "redis": redis}),
                st.fixed_dictionaries({"faultTolerance": stores}, optional=_PLACEMENT),
            ),
            "env": st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["TZ", "OMP_NUM_THREADS", "RAY_SERVE_X"]), "value": st.just("1")}
                ),
                max_size=2,
                unique_by=lambda each: each["name"],
            ),
            "podLabels": _LABELS,
            "podAnnotations": _LABELS,
            "serviceAccountName": st.just("drawer"),
            "image": st.fixed_dictionaries(
                {},
                optional={
                    "rayVersion": st.sampled_from(["2.58.0", "2.60.0", "2.61.1"]),
                    "pullPolicy": st.sampled_from(["IfNotPresent", "Never"]),
                    "pullSecrets": st.just([{"name": "registry"}]),
                },
            ),
            "autoscaling": st.fixed_dictionaries({}, optional={"idleWorkerSeconds": st.integers(1, 86400)}),
            "upgrade": st.one_of(
                st.fixed_dictionaries({"strategy": st.sampled_from(["NewCluster", "InPlaceOnly"])}),
                incremental.map(lambda settings: {"strategy": "Incremental", "incremental": settings}),
            ),
            "suspend": st.booleans(),
        },
    )
