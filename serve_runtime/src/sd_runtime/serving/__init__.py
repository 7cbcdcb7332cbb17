# SPDX-License-Identifier: Apache-2.0
"""The Ray Serve deployments (ingress and replica), and the HTTP protocol and middleware of Serve's proxies."""
