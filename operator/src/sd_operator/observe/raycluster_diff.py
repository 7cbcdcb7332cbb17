# SPDX-License-Identifier: Apache-2.0
"""Describes the values in which a live RayCluster differs from the desired one (pure)."""

from collections.abc import Iterator, Mapping
from typing import Any

from sd_operator.builders.fingerprint import MUTED_IN_GROUPS, TOLERATIONS

_SHOWN = 3


def differences(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """The first paths at which a live RayCluster differs from the desired one, as readable text."""
    found = list(_differing(wanted, live["spec"], ""))
    if not found:
        return "a field that the spec no longer has"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _differing(wanted: Any, live: Any, path: str) -> Iterator[str]:
    """Paths of desired values that are not live; additional fields come from KubeRay or defaults and do not count."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            if key not in {*MUTED_IN_GROUPS, TOLERATIONS}:
                yield from _differing(value, live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for item, counterpart in zip(wanted, live, strict=True):
            yield from _differing(item, counterpart, f"{path}[{_named(item)}]")
    elif not is_same_value(wanted, live):
        yield path


def _named(item: Any) -> str:
    if isinstance(item, Mapping):
        return str(item.get("groupName") or item.get("name") or item.get("key") or "")
    return str(item)


def is_same_value(wanted: Any, live: Any) -> bool:
    """Whether two values are equal, or the same quantity: KubeRay writes 0.5 as 500m."""
    if wanted == live or (wanted in ({}, []) and live is None):
        return True
    amounts = [_amount(value) for value in (wanted, live)]
    return amounts[0] is not None and amounts[0] == amounts[1]


_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGT")
}


def _amount(value: Any) -> float | None:
    """A Kubernetes quantity as a number; None if the value is not a quantity."""
    text = str(value)
    number = text.rstrip("mkKMGTi")
    try:
        return float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        return None
