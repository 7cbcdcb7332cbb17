# SPDX-License-Identifier: Apache-2.0
"""The HTTP API: one file per group of routes, over a `Service`; nothing here knows Ray."""

from sd_runtime.api.application import application

__all__ = ["application"]
