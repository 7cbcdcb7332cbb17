# SPDX-License-Identifier: Apache-2.0
"""The proving ground of the operator: one operator per namespace behind a fault proxy, and the checks after each fault."""
