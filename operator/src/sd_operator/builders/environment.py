# SPDX-License-Identifier: Apache-2.0
"""Formats environment variables as in a container."""

from collections.abc import Mapping


def env(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """The field `env` of a container, in the order of the mapping.

    >>> env({"OMP_NUM_THREADS": "4"})
    [{'name': 'OMP_NUM_THREADS', 'value': '4'}]
    """
    return [{"name": name, "value": value} for name, value in variables.items()]
