# SPDX-License-Identifier: Apache-2.0
"""What comes back of our own writes: an event of a version that a pass has written tells nothing that it did not know."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

_MOST = 10_000  # writes whose events may be on their way; each is remembered by two short texts


class OwnWrites:
    """The latest versions of objects that we have written."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._versions: OrderedDict[str, str] = OrderedDict()

    def wrote(self, metadata: Mapping[str, Any]) -> None:
        """Take note of an object as a write has left it."""
        self._versions[metadata["uid"]] = metadata["resourceVersion"]
        self._versions.move_to_end(metadata["uid"])
        if len(self._versions) > self._most:
            self._versions.popitem(last=False)

    def is_one(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object is as our last write to it has left it."""
        return bool(self._versions.get(metadata["uid"]) == metadata["resourceVersion"])
