# SPDX-License-Identifier: Apache-2.0
"""Every error that this distribution raises on purpose.

    SdServiceError
    ├── InvalidResource     a user's resource breaks a rule; a retry changes nothing
    ├── NameConflict        an object with a name that the operator needs is not the operator's; it is never changed
    ├── WaitingForDeletion  an object with a name that the operator needs is being deleted; the name is free afterwards
    ├── KubeRayMissing      the cluster has no kind RayService
    ├── KubeRayTooOld       the cluster's RayService lacks a field that the operator needs
    ├── Refused             the API server refused a request permanently (403, 422); a person must act
    ├── ClusterUnavailable  the API server is unavailable, overloaded or in conflict; the operator retries
    ├── LeadershipLost      another operator holds the Lease; this process ends
    ├── RayUnavailable      Ray's dashboard did not answer, or gave an unexpected answer
    │   └── RayTooSlow      Ray's dashboard did not answer in time
    └── LocalRunFailed      `sdservice run` could not start the service on this machine

The errors are translated in few places only. `reconcile` turns the first six into conditions. `work_queue` turns
ClusterUnavailable into back-off. `__main__` and `cli` turn every error into one line.
"""

from dataclasses import dataclass


class SdServiceError(Exception):
    """Base of all errors; its message is one line for a user."""


@dataclass(frozen=True)
class Problem:
    """One broken rule: the field, its value, and the rule."""

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
    """An object that the operator would have to write has another owner."""


class WaitingForDeletion(SdServiceError):
    """An object that the operator would have to write is still being deleted, such as one of a deleted service."""


class KubeRayMissing(SdServiceError):
    """The API server has no kind RayService: KubeRay is not installed."""


class KubeRayTooOld(SdServiceError):
    """The cluster's RayService lacks a field that the operator writes: KubeRay, or only its CRD, is too old."""


class Refused(SdServiceError):
    """The API server refused a request; only a person can change that."""


class ClusterUnavailable(SdServiceError):
    """The API server did not answer, or requested a retry."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class LeadershipLost(SdServiceError):
    """This process no longer holds the Lease; its knowledge may be outdated, so it ends."""


class RayUnavailable(SdServiceError):
    """Ray's dashboard did not answer, or refused a request."""


class RayTooSlow(RayUnavailable):
    """Ray's dashboard did not answer in time; it may answer within a longer time."""


class LocalRunFailed(SdServiceError):
    """The service did not start on this machine; `--verbose` adds `details` to the message."""

    def __init__(self, message: str, details: str = "") -> None:
        self.details = details
        super().__init__(message)
