# SPDX-License-Identifier: Apache-2.0
"""State that the ingress keeps between requests: jobs, cached images and the measured throughput."""
