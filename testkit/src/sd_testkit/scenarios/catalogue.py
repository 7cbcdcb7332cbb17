# SPDX-License-Identifier: Apache-2.0
"""The list of scenarios. Each first brings the service up, so that each can run alone and in any order."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubernetes.aio.client import ApiException

from sd_testkit.scenarios.user import NAME, User

_INVALID = 422


@dataclass(frozen=True)
class Scenario:
    """A name, and a function with the actions and expectations."""

    name: str
    play: Callable[[User], Awaitable[None]]


async def create(user: User) -> None:
    """A new service becomes Ready and generates a picture."""
    await user.delete()
    await _until_gone(user)
    await user.apply()
    await user.until_condition("Ready", "True", "Serving")
    await user.until_served()


async def change_in_place(user: User) -> None:
    """New limits reach running replicas. The cluster stays the same, and pictures arrive all the time."""
    cluster = await _up(user)
    await user.apply(limits={"maxSteps": 37})

    async def reached() -> bool:
        live = await user.get("RayService")
        return live is not None and "max_steps: 37" in live["spec"]["serveConfigV2"]

    await user.until("the limit in the Serve config", reached)
    await user.until_changed()
    _expect(await user.active_cluster() == cluster, "a change of limits started another cluster")
    _expect((await user.request()).served, "no picture after a change of limits")


async def change_bounds(user: User) -> None:
    """A higher upper bound reaches the running cluster's worker group."""
    cluster = await _up(user)
    await user.apply(replicas={"min": 1, "max": 3})

    async def reached() -> bool:
        live = await user.get("RayCluster", cluster)
        return live is not None and live["spec"]["workerGroupSpecs"][0]["maxReplicas"] >= 3  # noqa: PLR2004

    await user.until("maxReplicas of the running RayCluster", reached)
    await user.until_changed()
    _expect(await user.active_cluster() == cluster, "a change of bounds started another cluster")


async def new_cluster(user: User) -> None:
    """Changed pods need a second cluster. The first cluster serves until the second one takes over."""
    cluster = await _up(user)
    await user.apply(env=[{"name": "OMP_WAIT_POLICY", "value": "PASSIVE"}])
    await user.until_condition("Upgrading", "True")
    _expect((await user.request()).served, "no picture while the second cluster starts")

    async def moved() -> bool:
        return await user.active_cluster() not in {"", cluster}

    await user.until("another active cluster", moved)
    await user.until_changed()
    await user.until_served()


async def bad_model(user: User) -> None:
    """The weights are missing: the change fails and the status reports it.

    A revert by a person repairs the service.
    """
    await _up(user)
    await user.apply(model={"preset": None, "uri": "file:///no/such/model"})
    await user.until_condition("ConfigApplied", "False", "ApplicationFailed")
    await user.read()
    await user.apply()
    await user.until_changed()
    await user.until_served()


async def lose_head(user: User) -> None:
    """The head is deleted: Ready becomes False, and True again with a new head."""
    await _up(user)
    await user.kill_head()
    await user.until_condition("Ready", "False")
    await user.until_condition("Ready", "True", "Serving")
    await user.until_served()


async def refuse_invalid(user: User) -> None:
    """A spec that breaks a rule is refused with that rule's message, and the running cluster stays unchanged."""
    cluster = await _up(user)
    try:
        await user.apply(replicas={"min": 3, "max": 2})
    except ApiException as error:
        _expect(error.status == _INVALID, f"refused with {error.status}")
        _expect("min must not exceed max" in str(error.body), f"no rule in {error.body}")
    else:
        raise AssertionError("min above max was accepted")
    await user.until_condition("Ready", "True", "Serving")
    _expect(await user.active_cluster() == cluster, "a refused spec started another cluster")


async def suspend(user: User) -> None:
    """Suspended: no pod remains. Resumed: the service generates pictures again."""
    await _up(user)
    await user.apply(suspend=True)
    await user.until_condition("Suspended", "True", "Suspended")
    await user.until_condition("Ready", "False", "Suspended")

    async def no_pods() -> bool:
        return not await user.list("Pod", f"sdservice.dev/name={NAME},ray.io/is-ray-node=yes")

    await user.until("no Ray pod", no_pods)
    await user.read()
    await user.apply()
    await user.until_condition("Ready", "True", "Serving")
    await user.until_served()


async def scale_to_zero(user: User) -> None:
    """Idle workers are removed and Ready stays True.

    The next request waits until a worker can generate the picture.
    """
    user.quiet = True
    try:
        await user.apply(
            replicas={"min": 0, "max": 2},
            autoscaling={"downscaleDelaySeconds": 2, "idleWorkerSeconds": 2},
        )
        await user.until_condition("Ready", "True", "ScaledToZero")
        await user.until_changed()

        # If this needed another cluster, the former cluster keeps its pods for a while.
        cluster = await user.active_cluster()

        async def no_workers() -> bool:
            return not await user.list("Pod", f"ray.io/cluster={cluster},ray.io/node-type=worker")

        await user.until("no worker", no_workers)
        answer = await user.request(timeout_seconds=user.patience)
        _expect(answer.served, f"a request at zero was answered {answer.status} after {answer.seconds:.0f} s")
    finally:
        user.quiet = False
    await user.until_condition("Ready", "True")


async def delete(user: User) -> None:
    """Deleted: every object that was created for the service goes too."""
    await _up(user)
    await user.delete()
    await _until_gone(user)


SCENARIOS = (
    Scenario("create", create),
    Scenario("in-place change", change_in_place),
    Scenario("bounds", change_bounds),
    Scenario("new cluster", new_cluster),
    Scenario("bad model", bad_model),
    Scenario("head loss", lose_head),
    Scenario("invalid", refuse_invalid),
    Scenario("suspend", suspend),
    Scenario("scale to zero", scale_to_zero),
    Scenario("delete", delete),
)


async def _up(user: User) -> str:
    """Bring up the base service. Return the name of its cluster."""
    await user.apply()
    await user.until_changed()
    await user.until_condition("Ready", "True", "Serving")
    await user.until_served()
    return await user.active_cluster()


async def _until_gone(user: User) -> None:
    async def gone() -> bool:
        if await user.service() is not None:
            return False
        kinds = ("RayService", "RayCluster", "DaemonSet", "Secret", "Pod")
        left = [await user.list(kind, f"sdservice.dev/name={NAME}") for kind in kinds]
        return not any(left)

    await user.until("everything gone", gone)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
