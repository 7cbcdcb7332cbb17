# SPDX-License-Identifier: Apache-2.0
"""Each image from its Dockerfile."""

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
        """Its file at the root of the repository."""
        return f"Dockerfile.{self.name}"

    @property
    def reference(self) -> str:
        """Its name in the store."""
        return f"localhost/{self.name}:dev"


IMAGES = (Image("operator"), Image("worker"))


def build(store: Store, image: Image, context: Path = ROOT, reference: str = "") -> str:
    """Build an image on our own base; return its reference.

    Args:
        store: where it is kept.
        image: which one.
        context: checkout to build from.
        reference: what to call it; empty: as it is called.

    Raises:
        RuntimeError: a step failed; with the end of what was said.
    """
    ensure_base(store)
    called = reference or image.reference
    store.build(called, context / image.dockerfile, context, [*_base(), *_certificates(), *_packages()])
    return called


def _base() -> list[str]:
    return ["--build-arg", f"BASE_IMAGE={BASE}"]


def _certificates() -> list[str]:
    """What this host trusts, where it is told: steps that download need it as much as the host does."""
    bundle = os.environ.get("SSL_CERT_FILE")
    if not bundle:
        return []
    folder = Path(bundle).parent
    arguments = [f"SSL_CERT_FILE={bundle}", f"PIP_CERT={bundle}"]
    return ["-v", f"{folder}:{folder}:ro", *(part for each in arguments for part in ("--build-arg", each))]


def _packages() -> list[str]:
    """The cache of uv on this host, where there is one: packages that the development environment has are not downloaded."""
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    if not cache.is_dir():
        return []
    return ["-v", f"{cache}:{_UV_CACHE}", "--build-arg", f"UV_CACHE_DIR={_UV_CACHE}"]
