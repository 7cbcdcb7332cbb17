# SPDX-License-Identifier: Apache-2.0
"""A stand-in for KubeRay 1.7: its checks, passes and statuses over real objects.

Ray is simulated by `sd_testkit.ray`, or runs in pods.

A test compares the stand-in with a recording of a real KubeRay (tests/cluster/test_kuberay_stand_in.py). Source of
its behaviour: https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray.
"""

from sd_testkit.kuberay.controller import KubeRay, KubeRayOfPods

__all__ = ["KubeRay", "KubeRayOfPods"]
