# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes control plane on this machine and a stand-in for KubeRay, for tests and manual experiments."""
