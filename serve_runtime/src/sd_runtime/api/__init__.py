# SPDX-License-Identifier: Apache-2.0
"""The HTTP API on top of a `Service`, with one file per group of routes. Nothing in this package depends on Ray."""

from sd_runtime.api.application import application

__all__ = ["application"]
