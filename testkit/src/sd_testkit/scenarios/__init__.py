# SPDX-License-Identifier: Apache-2.0
"""User actions on a service and their expected results, for any cluster with KubeRay.

The same code runs against the stand-in (tests/cluster), against a real KubeRay (tests/e2e) and under the truth meter
(benchmarks/truth.py).
"""

from sd_testkit.scenarios.catalogue import SCENARIOS, Scenario
from sd_testkit.scenarios.user import User

__all__ = ["SCENARIOS", "Scenario", "User"]
