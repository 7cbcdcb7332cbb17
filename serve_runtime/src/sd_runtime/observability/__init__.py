# SPDX-License-Identifier: Apache-2.0
"""Metrics, traces and log records of the runtime."""
