# SPDX-License-Identifier: Apache-2.0
"""What runs for as long as the process does: watches, the queue of services, the leader lease and the health endpoints."""
