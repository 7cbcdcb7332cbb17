# SPDX-License-Identifier: Apache-2.0
"""The runtime: it serves Stable Diffusion and other diffusers pipelines on Ray Serve."""

__version__ = "0.1.0"
