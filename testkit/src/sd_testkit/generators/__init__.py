# SPDX-License-Identifier: Apache-2.0
"""Random and hostile input: specs, live objects, requests, responses, load."""
