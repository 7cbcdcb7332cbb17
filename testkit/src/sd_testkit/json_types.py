# SPDX-License-Identifier: Apache-2.0
"""JSON as Kubernetes and Ray send it."""

from typing import Any

Json = dict[str, Any]
"""One JSON object."""
