# SPDX-License-Identifier: Apache-2.0
"""The state of the Serve application of one RayCluster, from Ray itself and from KubeRay (pure).

A fresh answer of Ray has priority. While Ray's dashboard does not answer, the application status is the one that
KubeRay reports. Replica counts are then those last read from the same head, so a failed read alone flips no condition.
"""

from dataclasses import dataclass

from sd_operator import naming, times
from sd_operator.observe.snapshot import Snapshot, pods_of
from sd_operator.ray.serve_state import Reading, Silence
from sd_operator.ray.traceback import reason

UNREAD = "Ray's dashboard does not answer"


@dataclass(frozen=True)
class Known:
    """The known state of a Serve application.

    Attributes:
        status: RUNNING, DEPLOYING, ...; empty if neither Ray nor KubeRay reports one.
        words: all messages of Ray about the application.
        reading: the last usable answer of Ray's dashboard; None if there is none.
        failure: why the dashboard did not answer although its head is ready; empty otherwise.
    """

    status: str
    words: str
    reading: Reading | None
    failure: str = ""

    @property
    def counted(self) -> bool:
        """Whether Ray's own replica counts are known."""
        return self.reading is not None and bool(self.reading.state.deployments)

    @property
    def model(self) -> int:
        """Replicas of the model that accept requests; 0 if the counts are unknown."""
        return self.reading.state.running(naming.MODEL_DEPLOYMENT) if self.reading else 0

    @property
    def target(self) -> int:
        """Serve's target number of model replicas; 0 if the counts are unknown."""
        found = self.reading.state.deployments.get(naming.MODEL_DEPLOYMENT) if self.reading else None
        return found.target if found else 0

    @property
    def serves(self) -> bool:
        """Whether a request would reach a replica of the model."""
        return self.model > 0 and self.routed

    @property
    def routed(self) -> bool:
        """Whether a request would reach a replica of the ingress."""
        return bool(self.reading and self.reading.state.running(naming.INGRESS_DEPLOYMENT))

    @property
    def fresh(self) -> bool:
        """Whether Ray answered the latest poll."""
        return self.reading is not None and self.reading.fresh

    @property
    def reason(self) -> str:
        """The line of Ray's messages that names the reason."""
        return reason(self.words)

    @property
    def age(self) -> str:
        """The age of the state, as a clause for a message; empty if Ray has just answered, or has no head that could.

        For a remembered answer: `, as Ray reported at 2026-01-01T00:00:00Z; Ray has not answered since (Ray answers 302)`.
        Without an answer: `, as KubeRay reports; Ray's dashboard does not answer (Ray answers 302)`.
        """
        if self.reading is None:
            return f", as KubeRay reports; {self.unread}" if self.failure else ""
        if self.reading.fresh:
            return ""
        failure = f" ({self.reading.failure})" if self.reading.failure else ""
        return f", as Ray reported at {times.stamp(self.reading.at)}; Ray has not answered since{failure}"

    @property
    def unread(self) -> str:
        """A clause stating that Ray's dashboard does not answer, and why; empty if it answers or need not."""
        return f"{UNREAD} ({self.failure})" if self.failure else ""


def known(snapshot: Snapshot, cluster: str) -> Known:
    """The known state of the Serve application in a RayCluster."""
    reading = snapshot.serve.get(cluster)
    view = snapshot.ray_service
    reported = view.of(cluster) if view else None
    if reading is not None and (reading.fresh or not (reported and reported.status)):
        return Known(reading.state.status, reading.state.words(), reading)
    failure = _failure(snapshot, cluster, snapshot.silent.get(cluster))
    return Known(reported.status if reported else "", reported.message if reported else "", reading, failure)


def _failure(snapshot: Snapshot, cluster: str, silence: Silence | None) -> str:
    is_up = any(pod.ready and pod.is_head and pod.cluster == cluster for pod in snapshot.pods)
    return silence.failure if silence is not None and is_up else ""


def needs_probe(snapshot: Snapshot) -> bool:
    """Whether the operator must probe the service itself: workers are ready, but KubeRay and Ray do not show an answer."""
    view = snapshot.ray_service
    if view is None or not view.active:
        return False
    pods, application = pods_of(snapshot, view.active), known(snapshot, view.active)
    if not any(pod.ready and pod.in_service and not pod.is_head for pod in pods):
        return False
    if view.endpoints == 0:
        return True
    is_reported = application.counted or application.status == "RUNNING"
    return not (is_reported and (application.fresh or any(pod.ready and pod.is_head for pod in pods)))
