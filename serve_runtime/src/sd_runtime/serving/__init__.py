# SPDX-License-Identifier: Apache-2.0
"""All that imports ray: the ingress, the replica, and the proxy in front of them."""
