# SPDX-License-Identifier: Apache-2.0
"""TOML of dictionaries without dates and nulls: a line per key, tables inline (pure)."""

import json
from typing import Any


def toml(values: dict[str, Any]) -> str:
    """The same values; inline tables and arrays of TOML are JSON but for the equals sign."""
    return "".join(
        f"{json.dumps(name)} = {json.dumps(value, separators=(', ', ' = '))}\n"
        for name, value in values.items()
    )
