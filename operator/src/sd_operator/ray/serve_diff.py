# SPDX-License-Identifier: Apache-2.0
"""Compares the desired Serve config with the config that Ray runs (pure).

Every desired key must run with the same value; Serve's own defaults are not compared. Serve silently drops keys that it
does not know. Such keys appear here as keys without a running value.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sd_operator.json_types import Json
from sd_operator.ray.serve_state import ServeState

_VALUE_LIMIT = 80


class _Missing:
    """The value of a missing key."""


@dataclass(frozen=True)
class Difference:
    """One key whose running value differs from the desired value."""

    key: str
    desired: Any
    running: Any

    def __str__(self) -> str:
        """Return `deployments.model.user_config.limits.max_steps: the spec has 50, Ray runs 40`."""
        if isinstance(self.running, _Missing):
            return f"{self.key}: the spec has {_shown(self.desired)}, Ray does not accept this key"
        return f"{self.key}: the spec has {_shown(self.desired)}, Ray runs {_shown(self.running)}"


def differences(desired: Mapping[str, Any], state: ServeState) -> list[Difference]:
    """Keys whose running value differs from the desired one; deployments that are not built yet are left out.

    Args:
        desired: the Serve config as sent to Ray; the keys are named as in its application.
        state: the state that Ray reports.
    """
    application = desired["applications"][0]
    found = list(_within("", {key: desired[key] for key in state.server if key in desired}, state.server))
    whole = {key: value for key, value in application.items() if key != "deployments"}
    if state.config is not None:
        found += _within("", whole, state.config)
    for deployment in application["deployments"]:
        running = state.deployments.get(deployment["name"])
        if running is not None and running.config:
            found += _within(f"deployments.{deployment['name']}.", deployment, running.config)
    return found


def _within(prefix: str, desired: Json, running: Json) -> Iterator[Difference]:
    for key, value in desired.items():
        other = running.get(key, _Missing())
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _within(f"{prefix}{key}.", value, other)
        elif value != other and not (value is None and isinstance(other, _Missing)):
            yield Difference(prefix + key, value, other)


def _shown(value: Any) -> str:
    # A value may come from Ray, so it is cut to a bounded length.
    short = value[:_VALUE_LIMIT] if isinstance(value, str) else value
    text = json.dumps(short, sort_keys=True)
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 3] + "..."
