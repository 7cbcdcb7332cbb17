# SPDX-License-Identifier: Apache-2.0
"""Builders of Kubernetes objects: one file per object. Each function is pure and returns the object as a literal."""
