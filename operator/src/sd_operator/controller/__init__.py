# SPDX-License-Identifier: Apache-2.0
"""The long-running parts of the process: watches, the work queue, resync, leader election and the health endpoints."""
