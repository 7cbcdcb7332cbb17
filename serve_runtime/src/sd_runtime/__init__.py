# SPDX-License-Identifier: Apache-2.0
"""The runtime: Stable Diffusion pipelines on Ray Serve."""

__version__ = "0.1.0"
