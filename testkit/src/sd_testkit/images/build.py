# SPDX-License-Identifier: Apache-2.0
"""Build each image from its Dockerfile."""

import os
from dataclasses import dataclass
from pathlib import Path

from sd_testkit.images.base import BASE, ensure_base
from sd_testkit.images.store import Store
from sd_testkit.programs import ROOT

_UV_CACHE = "/var/cache/uv"  # of the build


@dataclass(frozen=True)
class Image:
    """An image of the project."""

    name: str

    @property
    def dockerfile(self) -> str:
        """Path of the Dockerfile, at the root of the repository."""
        return f"Dockerfile.{self.name}"

    @property
    def reference(self) -> str:
        """Name of the image in the store."""
        return f"localhost/{self.name}:dev"


IMAGES = (Image("operator"), Image("worker"))


def build(store: Store, image: Image, context: Path = ROOT, reference: str = "") -> str:
    """Build an image on the project's own base image.

    Return its reference.

    Args:
        store: the store that receives the image.
        image: the image to build.
        context: the checkout to build from.
        reference: name of the result; empty: the default name of the image.

    Raises:
        RuntimeError: a step failed; the message has the end of its output.
    """
    ensure_base(store)
    called = reference or image.reference
    store.build(called, context / image.dockerfile, context, [*_base(), *_certificates(), *_packages()])
    return called


def _base() -> list[str]:
    return ["--build-arg", f"BASE_IMAGE={BASE}"]


def _certificates() -> list[str]:
    """Return the mount for this host's CA certificates, if an environment variable names them.

    Build steps that download need them too.
    """
    bundle = os.environ.get("SSL_CERT_FILE")
    if not bundle:
        return []
    folder = Path(bundle).parent
    arguments = [f"SSL_CERT_FILE={bundle}", f"PIP_CERT={bundle}"]
    return ["-v", f"{folder}:{folder}:ro", *(part for each in arguments for part in ("--build-arg", each))]


def _packages() -> list[str]:
    """Return the mount for this host's uv cache, if there is one.

    The build then skips packages that the development environment has.
    """
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    if not cache.is_dir():
        return []
    return ["-v", f"{cache}:{_UV_CACHE}", "--build-arg", f"UV_CACHE_DIR={_UV_CACHE}"]
