# SPDX-License-Identifier: Apache-2.0
"""Reads what Ray and the runtime report over HTTP, bounded in bytes and time."""
