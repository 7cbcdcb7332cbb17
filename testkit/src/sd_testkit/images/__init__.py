# SPDX-License-Identifier: Apache-2.0
"""The project's images, built on this host by buildah on a Debian from debootstrap. No registry is needed for a base."""

from sd_testkit.images.build import IMAGES, Image, build
from sd_testkit.images.store import Store, obstacle

__all__ = ["IMAGES", "Image", "Store", "build", "obstacle"]
