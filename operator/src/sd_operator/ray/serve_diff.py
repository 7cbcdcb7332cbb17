# SPDX-License-Identifier: Apache-2.0
"""The Serve config that was asked for, compared with the one that runs (pure).

Everything asked for must run with the same value; what Serve adds, its defaults, does not count. Serve drops keys it
does not know without a word: they show here as keys that run with no value at all.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sd_operator.json_types import Json
from sd_operator.ray.serve_state import ServeState

_VALUE_LIMIT = 80


class _Missing:
    """The value of a key that is not there."""


@dataclass(frozen=True)
class Difference:
    """One key that runs with another value than asked for."""

    key: str
    asked: Any
    running: Any

    def __str__(self) -> str:
        """Return `deployments.model.user_config.limits.max_steps: asked 50, Ray runs 40`."""
        if isinstance(self.running, _Missing):
            return f"{self.key}: asked {_shown(self.asked)}, Ray does not take this key"
        return f"{self.key}: asked {_shown(self.asked)}, Ray runs {_shown(self.running)}"


def differences(asked: Mapping[str, Any], state: ServeState) -> list[Difference]:
    """Keys that run otherwise than asked, named as in the application's config; deployments not built yet are left out.

    Args:
        asked: the Serve config as sent to Ray.
        state: what Ray runs.
    """
    application = asked["applications"][0]
    found = list(_within("", {key: asked[key] for key in state.server if key in asked}, state.server))
    whole = {key: value for key, value in application.items() if key != "deployments"}
    if state.config is not None:
        found += _within("", whole, state.config)
    for deployment in application["deployments"]:
        running = state.deployments.get(deployment["name"])
        if running is not None and running.config:
            found += _within(f"deployments.{deployment['name']}.", deployment, running.config)
    return found


def _within(prefix: str, asked: Json, running: Json) -> Iterator[Difference]:
    for key, value in asked.items():
        other = running.get(key, _Missing())
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _within(f"{prefix}{key}.", value, other)
        elif value != other and not (value is None and isinstance(other, _Missing)):
            yield Difference(prefix + key, value, other)


def _shown(value: Any) -> str:
    # Of what Ray sent; the rest of a long text would be cut off anyway.
    short = value[:_VALUE_LIMIT] if isinstance(value, str) else value
    text = json.dumps(short, sort_keys=True)
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 3] + "..."
