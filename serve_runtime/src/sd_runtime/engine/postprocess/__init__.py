# SPDX-License-Identifier: Apache-2.0
"""From latents to the bytes of a file: decoder, safety checker, previews, encoding, provenance."""
