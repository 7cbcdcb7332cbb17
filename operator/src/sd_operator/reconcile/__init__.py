# SPDX-License-Identifier: Apache-2.0
"""One pass over one service: observe, plan, apply, report."""
