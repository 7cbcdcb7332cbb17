# SPDX-License-Identifier: Apache-2.0
"""Reads live objects, Ray's answers and nodes into one typed snapshot."""
