# SPDX-License-Identifier: Apache-2.0
"""What is known of the Serve application of one RayCluster, from Ray itself and from KubeRay (pure).

Ray's fresh answer wins. While its dashboard does not answer, the status is KubeRay's word where it has one, and
replica counts are those last read from the same head: a failed read alone flips nothing.
"""

from dataclasses import dataclass

from sd_operator import naming, times
from sd_operator.observe.snapshot import Snapshot, pods_of
from sd_operator.ray.serve_state import Reading, Silence
from sd_operator.ray.traceback import reason

UNREAD = "Ray's dashboard does not answer"


@dataclass(frozen=True)
class Known:
    """An application.

    Attributes:
        status: RUNNING, DEPLOYING, ...; empty where nobody tells.
        words: everything Ray says about it.
        reading: what Ray's dashboard told, if it did.
        failure: why it told nothing, where it should have: its head is ready.
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
        """Replicas of the model that take requests; 0 where not counted."""
        return self.reading.state.running(naming.MODEL_DEPLOYMENT) if self.reading else 0

    @property
    def target(self) -> int:
        """Replicas of the model that Serve wants; 0 where not counted."""
        found = self.reading.state.deployments.get(naming.MODEL_DEPLOYMENT) if self.reading else None
        return found.target if found else 0

    @property
    def serves(self) -> bool:
        """Whether a request would find its way to a replica of the model."""
        return self.model > 0 and self.routed

    @property
    def routed(self) -> bool:
        """Whether a request would find its way to the ingress."""
        return bool(self.reading and self.reading.state.running(naming.INGRESS_DEPLOYMENT))

    @property
    def fresh(self) -> bool:
        """Whether Ray answered the latest question."""
        return self.reading is not None and self.reading.fresh

    @property
    def reason(self) -> str:
        """The line of its words that tells the reason."""
        return reason(self.words)

    @property
    def age(self) -> str:
        """How old the knowledge is, as a clause; nothing where Ray has just answered, or need not have.

        `, as Ray told at 2026-01-01T00:00:00Z; it has not answered since (Ray answers 302)` for remembered knowledge;
        `, as KubeRay reports; Ray's dashboard does not answer (Ray answers 302)` without any.
        """
        if self.reading is None:
            return f", as KubeRay reports; {self.unread}" if self.failure else ""
        if self.reading.fresh:
            return ""
        failure = f" ({self.reading.failure})" if self.reading.failure else ""
        return f", as Ray told at {times.stamp(self.reading.at)}; it has not answered since{failure}"

    @property
    def unread(self) -> str:
        """That Ray's dashboard does not answer, and why; empty where it does, or need not."""
        return f"{UNREAD} ({self.failure})" if self.failure else ""


def known(snapshot: Snapshot, cluster: str) -> Known:
    """What is known of the application in a RayCluster."""
    reading = snapshot.serve.get(cluster)
    view = snapshot.ray_service
    told = view.of(cluster) if view else None
    if reading is not None and (reading.fresh or not (told and told.status)):
        return Known(reading.state.status, reading.state.words(), reading)
    failure = _failure(snapshot, cluster, snapshot.silent.get(cluster))
    return Known(told.status if told else "", told.message if told else "", reading, failure)


def _failure(snapshot: Snapshot, cluster: str, silence: Silence | None) -> str:
    is_up = any(pod.ready and pod.is_head and pod.cluster == cluster for pod in snapshot.pods)
    return silence.failure if silence is not None and is_up else ""


def needs_probe(snapshot: Snapshot) -> bool:
    """Whether KubeRay and Ray leave open if requests are answered, while workers could: the service is to be asked."""
    view = snapshot.ray_service
    if view is None or not view.active:
        return False
    pods, application = pods_of(snapshot, view.active), known(snapshot, view.active)
    if not any(pod.ready and pod.in_service and not pod.is_head for pod in pods):
        return False
    if view.endpoints == 0:
        return True
    is_told = application.counted or application.status == "RUNNING"
    return not (is_told and (application.fresh or any(pod.ready and pod.is_head for pod in pods)))
