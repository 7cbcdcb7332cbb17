# SPDX-License-Identifier: Apache-2.0
"""The operator: it creates and maintains a KubeRay RayService for each StableDiffusionService."""

__version__ = "0.1.0"
