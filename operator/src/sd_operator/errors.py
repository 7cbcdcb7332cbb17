# SPDX-License-Identifier: Apache-2.0
"""Every error this distribution raises on purpose.

    SdServiceError
    ├── InvalidResource     a user's resource breaks a rule; retrying changes nothing
    ├── NameConflict        an object of our name is not ours; never touched
    ├── WaitingForDeletion  an object of our name is on its way out; the name is free afterwards
    ├── KubeRayMissing      the cluster does not know the kind RayService
    ├── KubeRayTooOld       its RayService lacks a field that we need
    ├── Refused             the API server refused a write for good (403, 422); needs a person
    ├── ClusterUnavailable  the API server is away, overloaded or in conflict; try again
    ├── LeadershipLost      another operator writes now; this process ends
    ├── RayUnavailable      Ray's dashboard did not answer, or not as expected
    │   └── RayTooSlow      it did not within the time given
    └── LocalRunFailed      `sdservice run` could not bring the service up on this machine

They are translated in two places only: `reconcile` turns the first six into conditions,
`work_queue` turns ClusterUnavailable into back-off, `__main__` and `cli` turn all of them into one line.
"""

from dataclasses import dataclass


class SdServiceError(Exception):
    """Base of all of them: the message is one line, fit for a user."""


@dataclass(frozen=True)
class Problem:
    """One broken rule: where, what was found, what is wanted."""

    field: str
    value: str | None
    rule: str

    def __str__(self) -> str:
        """Return `spec.replicas: got {'min': 3}: min must not be above max`."""
        got = "" if self.value is None else f"got {self.value}: "
        return f"{self.field}: {got}{self.rule}"


class InvalidResource(SdServiceError):
    """A resource breaks one or more rules."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        self.name = name
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


class NameConflict(SdServiceError):
    """An object that we would have to write has another owner."""


class WaitingForDeletion(SdServiceError):
    """An object that we would have to write is still being removed, such as one of the former service of this name."""


class KubeRayMissing(SdServiceError):
    """The API server serves no RayService: KubeRay is not installed."""


class KubeRayTooOld(SdServiceError):
    """The cluster's RayService has no such field as we write: KubeRay, or only its CRD, is too old."""


class Refused(SdServiceError):
    """The API server refused a request; only a person can change that."""


class ClusterUnavailable(SdServiceError):
    """The API server did not answer, or asked us to come again."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class LeadershipLost(SdServiceError):
    """The Lease is not ours any more: whatever we know may be old, so the process ends."""


class RayUnavailable(SdServiceError):
    """Ray's dashboard did not answer, or refused a request."""


class RayTooSlow(RayUnavailable):
    """Ray's dashboard did not answer in time; it may, given more."""


class LocalRunFailed(SdServiceError):
    """The service did not come up on this machine; `details` is what `--verbose` adds."""

    def __init__(self, message: str, details: str = "") -> None:
        self.details = details
        super().__init__(message)
