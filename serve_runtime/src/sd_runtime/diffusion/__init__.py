# SPDX-License-Identifier: Apache-2.0
"""Pipelines and their batching; the only package that imports torch, diffusers and transformers."""

from sd_runtime.diffusion.batching import BatchingEngine
from sd_runtime.diffusion.loader import load

__all__ = ["BatchingEngine", "load"]
