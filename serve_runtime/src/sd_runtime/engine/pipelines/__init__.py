# SPDX-License-Identifier: Apache-2.0
"""Loading of pipelines, and the parts that differ between families of models."""
