# SPDX-License-Identifier: Apache-2.0
"""The Helm chart from outside: the models its values follow, the files generated from them, and what it renders."""

from sd_testkit.chart.account import Account, role_rules, service_account
from sd_testkit.chart.render import CHART, helm, rendered, template
from sd_testkit.chart.values import Values

__all__ = ["CHART", "Account", "Values", "helm", "rendered", "role_rules", "service_account", "template"]
