# SPDX-License-Identifier: Apache-2.0
"""A real control plane on this machine and a stand-in for KubeRay, for tests and for playing by hand."""
