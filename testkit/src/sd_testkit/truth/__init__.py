# SPDX-License-Identifier: Apache-2.0
"""Measure how often a status was wrong: a trace of objects, a meter over it, a report."""
