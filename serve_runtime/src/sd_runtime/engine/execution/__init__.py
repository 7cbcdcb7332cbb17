# SPDX-License-Identifier: Apache-2.0
"""The threads that prepare image tasks, batch them, and run their denoising steps."""
