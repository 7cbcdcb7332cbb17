# SPDX-License-Identifier: Apache-2.0
"""Sources of weights. Each source provides one local folder, from which the loader reads."""

from collections.abc import Callable
from pathlib import Path

from sd_runtime.config import Lora, ModelConfig
from sd_runtime.errors import ConfigError
from sd_runtime.weights import bundled, completeness, folder, hub, lora

_SOURCES: dict[str, Callable[[ModelConfig], Path]] = {
    "bundled": bundled.fetch,
    "file": folder.fetch,
    "pvc": folder.fetch_claim,
    "hf": hub.fetch,
}


def fetch(model: ModelConfig) -> Path:
    """Fetch a model if necessary, and return its local folder.

    Raises:
        ConfigError: the scheme of the URI is not supported.
        ModelUnavailable: the weights cannot be fetched, or are not complete.
    """
    scheme, separator, _ = model.uri.partition("://")
    if not separator or scheme not in _SOURCES:
        known = ", ".join(f"{name}://" for name in _SOURCES)
        raise ConfigError(f"model.uri: got {model.uri!r}: must start with one of {known}")
    found = _SOURCES[scheme](model)
    completeness.check(model, found)
    return found


def commit(model: ModelConfig, folder: Path) -> str:
    """The commit of a fetched model, also if its revision is a branch or tag; empty if its source has no commits.

    Args:
        model: the model that was fetched.
        folder: its local folder.
    """
    return hub.commit(folder) if model.uri.startswith("hf://") else ""


def fetch_lora(wanted: Lora) -> Path:
    """Fetch a LoRA if necessary, and return its local file.

    Raises:
        ConfigError: the scheme of the URI is not supported for LoRAs.
        ModelUnavailable: the weights cannot be fetched.
    """
    return lora.fetch(wanted)
