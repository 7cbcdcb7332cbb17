# SPDX-License-Identifier: Apache-2.0
"""Models of the chart's values, the files generated from them, and the rendered chart for tests."""

from sd_testkit.chart.account import Account, role_rules, service_account
from sd_testkit.chart.render import CHART, helm, rendered, template
from sd_testkit.chart.values import Values

__all__ = ["CHART", "Account", "Values", "helm", "rendered", "role_rules", "service_account", "template"]
