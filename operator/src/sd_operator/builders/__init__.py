# SPDX-License-Identifier: Apache-2.0
"""One file per object we want; each function is pure and returns the object as a literal."""
