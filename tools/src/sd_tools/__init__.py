# SPDX-License-Identifier: Apache-2.0
"""Tools for the developers of this project. No other package imports them."""
