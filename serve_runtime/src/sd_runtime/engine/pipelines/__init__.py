# SPDX-License-Identifier: Apache-2.0
"""What is particular to a family of models."""
