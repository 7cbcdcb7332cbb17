# SPDX-License-Identifier: Apache-2.0
"""Simulated Ray clusters down to their ports.

A simulated kubelet runs the pods, and Serve follows Ray's rules.

The stand-in for KubeRay or a real KubeRay creates the Ray pods. Each head has a dashboard on port 8265. A pod in
which the Serve proxy would run has an HTTP server on port 8000. Clients reach both through the API server, as in any
cluster.
"""

from sd_testkit.ray.simulation import Ray

__all__ = ["Ray"]
