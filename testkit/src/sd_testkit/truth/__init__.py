# SPDX-License-Identifier: Apache-2.0
"""How often a status was wrong: a trace of objects, a meter over it, a report."""
