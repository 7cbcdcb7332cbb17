# SPDX-License-Identifier: Apache-2.0
"""The denoising loop and its pipelines; the only package that imports torch, diffusers and transformers."""

from sd_runtime.diffusion.engine import DiffusionEngine
from sd_runtime.diffusion.loader import load

__all__ = ["DiffusionEngine", "load"]
