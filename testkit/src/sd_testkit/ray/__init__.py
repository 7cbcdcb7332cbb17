# SPDX-License-Identifier: Apache-2.0
"""Ray clusters that are simulated down to their ports: pods by a kubelet of our own, Serve by its rules.

Whoever makes Ray pods, the stand-in for KubeRay or a real one, finds in them a dashboard on 8265 and, where the
Serve proxy would run, an HTTP server on 8000, reached through the API server as in any cluster.
"""

from sd_testkit.ray.simulation import Ray

__all__ = ["Ray"]
