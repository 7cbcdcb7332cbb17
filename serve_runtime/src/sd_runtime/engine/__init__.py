# SPDX-License-Identifier: Apache-2.0
"""The interface of an engine, and the one that computes with diffusers.

No other package imports torch, diffusers or transformers; a module that the ingress imports from here does not either.
"""
