# SPDX-License-Identifier: Apache-2.0
"""What the ingress keeps between requests: jobs, results, and how fast images were made."""
