# SPDX-License-Identifier: Apache-2.0
"""The threads that make images ready, batch them, and take them through their steps."""
