# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of `bundled://shapes`: from drawn pictures to a pipeline folder."""
