# SPDX-License-Identifier: Apache-2.0
"""Schedulers, and the batched step that all of them share."""
