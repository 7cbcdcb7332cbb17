# SPDX-License-Identifier: Apache-2.0
"""The proving ground of the operator: one of its own per namespace, behind a fault proxy, and what must hold afterwards."""
