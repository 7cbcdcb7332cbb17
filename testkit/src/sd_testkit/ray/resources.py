# SPDX-License-Identifier: Apache-2.0
"""Ray resources of a node and the demand of an actor, from pods and Serve configs (pure)."""

import json
import math

from sd_testkit.json_types import Json

Amounts = dict[str, float]

_EPSILON = 1e-6


def of_node(group: Json) -> Amounts:
    """Return the resources that `ray start` would offer with KubeRay's arguments.

    rayStartParams override the container's limits.
    """
    parameters = group.get("rayStartParams") or {}
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    gpus = sum(float(amount) for name, amount in limits.items() if name.endswith("gpu"))
    amounts = {
        "CPU": float(parameters.get("num-cpus", math.ceil(_cores(str(limits.get("cpu", "0")))))),
        "GPU": float(parameters.get("num-gpus", gpus)),
    }
    custom: dict[str, float] = json.loads(parameters.get("resources", "'{}'").strip("'").replace('\\"', '"'))
    return {**amounts, **custom}


def of_actor(deployment: Json) -> Amounts:
    """Return the resources that one replica of a deployment needs. Serve's default is one CPU."""
    options = deployment.get("ray_actor_options") or {}
    demand = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
    return {name: amount for name, amount in {**demand, **options.get("resources", {})}.items() if amount}


def fits(demand: Amounts, free: Amounts) -> bool:
    """Return whether a node with these free resources can run the actor."""
    return all(free.get(name, 0.0) + _EPSILON >= amount for name, amount in demand.items())


def subtract(free: Amounts, demand: Amounts) -> None:
    """Subtract the actor's demand from the free resources of a node."""
    for name, amount in demand.items():
        free[name] = free.get(name, 0.0) - amount


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
