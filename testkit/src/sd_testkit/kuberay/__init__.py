# SPDX-License-Identifier: Apache-2.0
"""A stand-in for KubeRay 1.7: its checks, passes and statuses over real objects; Ray itself is `sd_testkit.ray`, or runs in pods.

It is held to a recording of a real KubeRay (tests/cluster/test_kuberay_stand_in.py). Sources of its behaviour:
https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray.
"""

from sd_testkit.kuberay.controller import KubeRay, KubeRayOfPods

__all__ = ["KubeRay", "KubeRayOfPods"]
