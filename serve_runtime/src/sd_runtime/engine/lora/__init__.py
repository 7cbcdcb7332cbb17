# SPDX-License-Identifier: Apache-2.0
"""LoRA files: which are usable, which layers they change, and how the networks switch between them."""
