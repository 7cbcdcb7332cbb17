# SPDX-License-Identifier: Apache-2.0
"""Serve's controller: a config becomes an application, its deployments, and replicas on nodes (time is a parameter).

Statuses and their order are those that Ray 2.60 reports. An application is DEPLOYING without deployments while it is
built. Its deployments are then UPDATING until every replica runs. During the build of another version, the replicas
of the old version continue to serve. The old replicas also serve if the build fails. The status names none of them. After the
build, old replicas stop as new ones run in their place if `max_surge_percent` is above 0. If it is 0, they stop at
once.
"""

import importlib.util
import math
import uuid
from dataclasses import dataclass, field

from sd_testkit.json_types import Json
from sd_testkit.ray.pace import Pace
from sd_testkit.ray.resources import Amounts, fits, of_actor, subtract

_CODE = ("import_path", "runtime_env", "args")
_TRIES = 3
_PENDING_TOO_LONG = 30.0


@dataclass
class Replica:
    """One replica: its node, and whether it runs yet.

    Attributes:
        started: when its process started, in monotonic seconds. `ready` is the time since which it runs.
        first_picture_seconds: duration of its first image; None before that.
        version: version of the application for which it was started.
    """

    deployment: str
    node: str
    demand: Amounts
    started: float
    running: bool = False
    ready: float = 0.0
    first_picture_seconds: float | None = None
    version: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


@dataclass
class Serve:
    """The single application of a Ray cluster.

    Attributes:
        config: the config as it was PUT; None before the first.
        status: status of the application; empty if there is none.
        failure: error message of the constructor of a failed deployment.
        ongoing: number of requests that wait or run. Serve scales deployments by this number.
        addresses: IP addresses of the nodes.
    """

    pace: Pace
    config: Json | None = None
    status: str = ""
    message: str = ""
    ongoing: int = 0
    failure: str = ""
    replicas: list[Replica] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    _targets: dict[str, Json] = field(default_factory=dict)
    _stage_since: float = 0.0
    _lacking_since: float | None = None
    _low_since: dict[str, float] = field(default_factory=dict)
    _failures: int = 0
    _looks: int = 0
    _version: int = 0

    def put(self, config: Json, now: float) -> None:
        """Accept a config. Changed code, arguments or environment cause a new build."""
        before, self.config = self._application(), config
        wanted = self._application()
        if wanted is None:
            self.status, self.message, self.replicas, self._targets = "", "", [], {}
        elif before is None or self.status == "DEPLOY_FAILED" or _code(before) != _code(wanted):
            self.status, self.message, self._targets, self._stage_since = "DEPLOYING", "", {}, now
            self._looks = self._failures = 0
        else:
            self._targets = {each["name"]: each for each in wanted["deployments"]}

    def step(self, nodes: dict[str, Amounts], now: float, *, held: bool, scripted: str = "") -> None:
        """Run one step of the controller: build, place, start, scale.

        Args:
            nodes: total resources by node. A replica on any other node is gone.
            now: monotonic seconds.
            held: whether a test blocks the end of the build.
            scripted: status that a test sets for the application, whatever its config.
        """
        self.replicas = [each for each in self.replicas if each.node in nodes]
        application = self._application()
        if application is None:
            return
        if scripted:
            self.status, self.message = scripted, f"{scripted}: set by an annotation"
            self.replicas = [
                each for each in self.replicas if each.deployment != application["deployments"][-1]["name"]
            ]
            return
        if self.status == "DEPLOYING" and not self._targets:
            self._looks += 1
            if held or self._looks < self.pace.looks or now - self._stage_since < self.pace.build:
                return
            self._build(application)
        if self._targets and self._failures < _TRIES:
            self._place(nodes, now)
            if self._all_run():
                self.status, self.message = "RUNNING", ""
            elif self._failures < _TRIES and self.status in {"UNHEALTHY", "DEPLOY_FAILED"}:
                self.status, self.message = "DEPLOYING", ""  # The annotation was removed.

    @property
    def routed(self) -> bool:
        """Return whether the proxies have a route: a version was built, or replicas of an earlier version exist."""
        return bool(self._targets or self.replicas)

    def running(self, deployment: str) -> list[Replica]:
        """Return the replicas that take requests."""
        return [each for each in self.replicas if each.deployment == deployment and each.running]

    def pending(self) -> list[Amounts]:
        """Return the demands of replicas that fit on no node. The autoscaler adds workers for them."""
        return [
            of_actor(target)
            for name, target in self._targets.items()
            for _ in range(self._missing(name, target))
        ]

    def deployment_status(self, name: str) -> str:
        """Return UPDATING until the desired replicas run, or have failed too often."""
        if self._failures >= _TRIES and not self._runs(name):
            return "DEPLOY_FAILED"
        return "HEALTHY" if self._runs(name) else "UPDATING"

    @property
    def deployments(self) -> dict[str, Json]:
        """Return the deployments that the status names, as configured."""
        return self._targets

    def target(self, name: str) -> int:
        """Return the desired number of replicas."""
        return self._wanted(self._targets[name])

    def is_short_of_nodes(self, now: float) -> bool:
        """Return whether replicas have waited for a node longer than Ray's delay before a warning."""
        return self._lacking_since is not None and now - self._lacking_since > _PENDING_TOO_LONG

    def _application(self) -> Json | None:
        applications: list[Json] = (self.config or {}).get("applications") or []
        return applications[0] if applications else None

    def _build(self, application: Json) -> None:
        module = application["import_path"].partition(":")[0]
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            name = application["name"]
            self.status = "DEPLOY_FAILED"
            self.message = (
                f"Deploying app '{name}' failed with exception:\nTraceback (most recent call last):\n"
                f"ModuleNotFoundError: No module named '{module}'\n"
            )
            return
        self._targets = {each["name"]: each for each in application["deployments"]}
        self._version += 1
        surging = {name for name, each in self._targets.items() if each.get("max_surge_percent", 0)}
        self.replicas = [each for each in self.replicas if each.running and each.deployment in surging]

    def _place(self, nodes: dict[str, Amounts], now: float) -> None:
        self._scale_down(now)
        free = {name: dict(amounts) for name, amounts in nodes.items()}
        for replica in self.replicas:
            subtract(free[replica.node], replica.demand)
        self._start(now)
        self._stop_old()
        lacking = False
        for name, target in self._targets.items():
            for _ in range(self._missing(name, target)):
                demand = of_actor(target)
                node = next((each for each, left in free.items() if fits(demand, left)), None)
                if node is None:
                    lacking = True
                    break
                subtract(free[node], demand)
                self.replicas.append(Replica(name, node, demand, now, version=self._version))
        self._lacking_since = (self._lacking_since or now) if lacking else None

    def _start(self, now: float) -> None:
        """Start replicas. Deployments that others call start first."""
        for name in reversed(self._targets):
            coming = [each for each in self.replicas if each.deployment == name and not each.running]
            if coming:
                for each in coming:
                    self._construct(each, now)
                return

    def _construct(self, replica: Replica, now: float) -> None:
        """Run the constructor. The constructor fails for a missing model: the simulated image has only the bundled models."""
        if now - replica.started < self.pace.replica:
            return
        uri = str(((self._application() or {}).get("args") or {}).get("model", {}).get("uri", ""))
        if not uri.startswith("file://") or replica.deployment != list(self._targets)[-1]:
            replica.running, replica.ready = True, now
            return
        self.replicas.remove(replica)
        self._failures += 1
        if self._failures >= _TRIES:
            self.status = "DEPLOY_FAILED"
            self.message = f"Failed to update the deployments ['{replica.deployment}']."
            self.failure = (
                f"The deployment failed to start {_TRIES} times in a row. This may be due to a problem with its"
                " constructor or initial health check failing. See controller logs for details. Error:\n"
                f"FileNotFoundError: {uri}: there is no such folder"
            )

    def _missing(self, name: str, target: Json) -> int:
        """Return the replicas of this version to start now. Beside old replicas, the surge limits their number."""
        mine = [each for each in self.replicas if each.deployment == name]
        current, wanted = sum(each.version == self._version for each in mine), self._wanted(target)
        surge = math.ceil(target.get("max_surge_percent", 0) * wanted / 100)
        return int(max(0, min(wanted - current, wanted + surge - len(mine))))

    def _stop_old(self) -> None:
        """Stop old replicas as replicas of this version run in their place."""
        for name, target in self._targets.items():
            old = [each for each in self.replicas if each.deployment == name and each.version < self._version]
            for each in old[: max(0, len(self.running(name)) - self._wanted(target))]:
                self.replicas.remove(each)

    def _scale_down(self, now: float) -> None:
        for name, target in self._targets.items():
            mine = [
                each for each in self.replicas if each.deployment == name and each.version == self._version
            ]
            surplus = len(mine) - self._wanted(target)
            if surplus <= 0:
                self._low_since.pop(name, None)
                continue
            delay = (target.get("autoscaling_config") or {}).get("downscale_delay_s", 0)
            if now - self._low_since.setdefault(name, now) >= delay:
                for each in mine[-surplus:]:
                    self.replicas.remove(each)

    def _wanted(self, target: Json) -> int:
        scaling = target.get("autoscaling_config")
        if not scaling:
            return int(target.get("num_replicas") or 1)
        asked = math.ceil(self.ongoing / scaling.get("target_ongoing_requests", 2))
        return int(min(max(asked, scaling.get("min_replicas", 1)), scaling.get("max_replicas", 1)))

    def _runs(self, name: str) -> bool:
        current = [each for each in self.running(name) if each.version == self._version]
        return len(current) >= self._wanted(self._targets[name])

    def _all_run(self) -> bool:
        if self.status == "RUNNING":
            return True  # A scale-up does not cancel this.
        return all(self._runs(name) for name in self._targets)


def _code(application: Json) -> Json:
    return {key: application.get(key) for key in _CODE}
