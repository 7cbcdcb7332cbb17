# SPDX-License-Identifier: Apache-2.0
"""Serve's REST API as in Ray 2.60: `GET /api/serve/applications/` (pure).

Source: https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api. Fields without a reader in this project are
left out.
"""

from sd_testkit.json_types import Json
from sd_testkit.ray.serve import Replica, Serve


def applications(serve: Serve, now: float) -> Json:
    """Return the body of the response."""
    config = serve.config or {}
    body: Json = {
        "proxy_location": config.get("proxy_location", "EveryNode"),
        "http_options": config.get("http_options", {}),
        "target_capacity": config.get("target_capacity"),
        "applications": {},
    }
    if serve.status:
        application = config["applications"][0]
        body["applications"][application["name"]] = _application(serve, application, now)
    return body


def _application(serve: Serve, application: Json, now: float) -> Json:
    return {
        "name": application["name"],
        "route_prefix": application.get("route_prefix", "/"),
        "docs_path": None,
        "status": serve.status,
        "message": serve.message,
        "last_deployed_time_s": now,
        "deployed_app_config": application,
        "source": "declarative",
        "deployments": {
            name: _deployment(serve, name, target, now) for name, target in serve.deployments.items()
        },
    }


def _deployment(serve: Serve, name: str, target: Json, now: float) -> Json:
    replicas = [each for each in serve.replicas if each.deployment == name]
    message = serve.failure if serve.deployment_status(name) == "DEPLOY_FAILED" else ""
    if serve.is_short_of_nodes(now) and len(replicas) < serve.target(name):
        message = (
            f"Deployment '{name}' in application 'imagine' {serve.target(name) - len(replicas)} replicas that have"
            " taken more than 30s to be scheduled. This may be due to waiting for the cluster to auto-scale or for a"
            " runtime environment to be installed."
        )
    return {
        "name": name,
        "status": serve.deployment_status(name),
        "status_trigger": "CONFIG_UPDATE_STARTED",
        "message": message,
        "deployment_config": target,
        "target_num_replicas": serve.target(name),
        "replicas": [_replica(each, serve.addresses.get(each.node)) for each in replicas],
    }


def _replica(replica: Replica, address: str | None) -> Json:
    return {
        "replica_id": replica.id,
        "node_id": replica.node,
        "node_ip": address,
        "state": "RUNNING" if replica.running else "STARTING",
        "start_time_s": replica.started,
    }
