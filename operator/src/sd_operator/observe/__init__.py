# SPDX-License-Identifier: Apache-2.0
"""Live objects, Ray's answers and nodes, as one typed snapshot."""
