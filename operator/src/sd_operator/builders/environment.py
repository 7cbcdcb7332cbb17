# SPDX-License-Identifier: Apache-2.0
"""Variables as a container lists them."""

from collections.abc import Mapping


def env(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """`env` of a container, in the order of the mapping.

    >>> env({"OMP_NUM_THREADS": "4"})
    [{'name': 'OMP_NUM_THREADS', 'value': '4'}]
    """
    return [{"name": name, "value": value} for name, value in variables.items()]
