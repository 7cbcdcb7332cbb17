# SPDX-License-Identifier: Apache-2.0
"""What is known of the Serve application of one RayCluster, from Ray itself and from KubeRay (pure).

Ray's fresh answer wins. While its dashboard does not answer, the status is KubeRay's word where it has one, and
replica counts are those last read from the same head: a failed read alone flips nothing.
"""

from dataclasses import dataclass

from sd_operator import naming, times
from sd_operator.observed import Observed
from sd_operator.ray_messages import reason
from sd_operator.serve_state import Reading


@dataclass(frozen=True)
class Known:
    """An application.

    Attributes:
        status: RUNNING, DEPLOYING, ...; empty where nobody tells.
        words: everything Ray says about it.
        reading: what Ray's dashboard told, if it did.
    """

    status: str
    words: str
    reading: Reading | None

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
        """`, as Ray told at 2026-01-01T00:00:00Z` for remembered knowledge, else nothing."""
        if self.reading is None or self.reading.fresh:
            return ""
        return f", as Ray told at {times.stamp(self.reading.at)}; it has not answered since"


def known(observed: Observed, cluster: str) -> Known:
    """What is known of the application in a RayCluster."""
    reading = observed.serve.get(cluster)
    view = observed.ray_service
    told = view.of(cluster) if view else None
    if reading is not None and (reading.fresh or not (told and told.status)):
        return Known(reading.state.status, reading.state.words(), reading)
    return Known(told.status if told else "", told.message if told else "", reading)
