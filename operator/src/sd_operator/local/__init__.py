# SPDX-License-Identifier: Apache-2.0
"""A service on this machine, without Kubernetes: the same Serve configuration in a Ray of its own."""
