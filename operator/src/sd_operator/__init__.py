# SPDX-License-Identifier: Apache-2.0
"""The operator: a StableDiffusionService becomes a KubeRay RayService, and stays one."""

__version__ = "0.1.0"
