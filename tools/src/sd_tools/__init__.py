# SPDX-License-Identifier: Apache-2.0
"""Tools of the developers of this project; nothing else imports them."""
