# SPDX-License-Identifier: Apache-2.0
"""What makes a UNet call faster: compiled code, CUDA graphs, CPU cores, and which of them is on."""
