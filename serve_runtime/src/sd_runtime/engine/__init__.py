# SPDX-License-Identifier: Apache-2.0
"""The engine interface, and the engine that generates images with diffusers.

Only this package imports torch, diffusers and transformers. The modules that the ingress imports from here
do not import them.
"""
