# SPDX-License-Identifier: Apache-2.0
"""Optimizations of UNet calls: compiled code, CUDA graphs, CPU row groups, quantization, and their selection."""
