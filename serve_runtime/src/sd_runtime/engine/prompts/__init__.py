# SPDX-License-Identifier: Apache-2.0
"""From the text of a request to what the text encoders return."""
