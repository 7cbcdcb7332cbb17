# SPDX-License-Identifier: Apache-2.0
"""Suppresses watch events that the operator's own writes cause (same uid and resourceVersion)."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

_MOST = 10_000  # writes whose events may still arrive; each needs two short strings


class OwnWrites:
    """The latest versions of objects that the operator has written."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._versions: OrderedDict[str, str] = OrderedDict()

    def wrote(self, metadata: Mapping[str, Any]) -> None:
        """Record the version of an object after a write."""
        self._versions[metadata["uid"]] = metadata["resourceVersion"]
        self._versions.move_to_end(metadata["uid"])
        if len(self._versions) > self._most:
            self._versions.popitem(last=False)

    def is_one(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object has the version of the operator's last write to it."""
        return bool(self._versions.get(metadata["uid"]) == metadata["resourceVersion"])
