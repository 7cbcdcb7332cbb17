# SPDX-License-Identifier: Apache-2.0
"""Exit codes of `sdservice`, and how its errors are printed."""

from sd_operator.errors import InvalidResource, SdServiceError

FAILURE, INVALID = 1, 3


def error_lines(error: SdServiceError) -> list[str]:
    """One line per broken rule, or one line for any other error."""
    if isinstance(error, InvalidResource):
        return [f"{error.name}: {problem}" for problem in error.problems]
    return [f"sdservice: {error}"]
