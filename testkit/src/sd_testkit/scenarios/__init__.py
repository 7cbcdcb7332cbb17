# SPDX-License-Identifier: Apache-2.0
"""What users do to a service and what they must then see, on any cluster that has KubeRay.

The same code runs against the stand-in (tests/cluster), a real KubeRay (tests/e2e) and under the truth meter
(benchmarks/truth.py).
"""

from sd_testkit.scenarios.catalogue import SCENARIOS, Scenario
from sd_testkit.scenarios.user import User

__all__ = ["SCENARIOS", "Scenario", "User"]
