# SPDX-License-Identifier: Apache-2.0
"""A real control plane: programs, certificates, client, CRDs, and snapshots of its objects."""
