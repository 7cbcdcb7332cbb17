# SPDX-License-Identifier: Apache-2.0
"""The sources `file:///path` and `pvc://claim/path`: a diffusers folder that exists on this machine."""

from pathlib import Path

from sd_runtime.config import ModelConfig
from sd_runtime.errors import ConfigError, ModelNotFound, ModelUnavailable

CLAIMS = Path("/models")
"""The folder in which the operator mounts PersistentVolumeClaims, each under its name."""


def fetch(model: ModelConfig) -> Path:
    """The folder of `file:///path`."""
    path = Path(model.uri.removeprefix("file://"))
    if not path.is_absolute():
        raise ConfigError(f"model.uri: got {model.uri!r}: must be file:// and an absolute path")
    return _existing(model, path)


def fetch_claim(model: ModelConfig) -> Path:
    """The folder of `pvc://claim/path`, below the mount of the claim."""
    claim, _, inside = model.uri.removeprefix("pvc://").partition("/")
    if claim in {"", ".", ".."}:
        raise ConfigError(
            f"model.uri: got {model.uri!r}: must be pvc://CLAIM/PATH, with the name of a PersistentVolumeClaim"
        )
    root = (CLAIMS / claim).resolve()
    path = (root / inside).resolve()
    if not path.is_relative_to(root):
        raise ModelUnavailable(f"model.uri: got {model.uri!r}: the path must stay inside the claim")
    return _existing(model, path)


def _existing(model: ModelConfig, path: Path) -> Path:
    if path.is_file():
        raise ConfigError(
            f"model.uri: got {model.uri!r}: {path.name} is a file: must be a folder with a model_index.json, as diffusers"
            " saves a pipeline"
        )
    if not path.is_dir():
        raise ModelNotFound(f"model.uri: got {model.uri!r}: there is no folder {path}")
    return path
