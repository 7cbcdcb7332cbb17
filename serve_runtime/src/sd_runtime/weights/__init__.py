# SPDX-License-Identifier: Apache-2.0
"""Where weights come from: every kind of source ends in one local folder, and one loader reads it."""

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
    """The local folder of a model.

    Raises:
        ConfigError: the scheme of the URI is not one of ours.
        ModelUnavailable: it is, but the weights cannot be had, or not all of them.
    """
    scheme, separator, _ = model.uri.partition("://")
    if not separator or scheme not in _SOURCES:
        known = ", ".join(f"{name}://" for name in _SOURCES)
        raise ConfigError(f"model.uri: got {model.uri!r}: must start with one of {known}")
    found = _SOURCES[scheme](model)
    completeness.check(model, found)
    return found


def commit(model: ModelConfig, folder: Path) -> str:
    """The commit that a fetched folder holds, whatever branch or tag was asked for; empty where the source has none.

    Args:
        model: what was fetched.
        folder: where it is.
    """
    return hub.commit(folder) if model.uri.startswith("hf://") else ""


def fetch_lora(wanted: Lora) -> Path:
    """The local file of a LoRA.

    Raises:
        ConfigError: the scheme of the URI is none that a LoRA can come from.
        ModelUnavailable: the weights cannot be had.
    """
    return lora.fetch(wanted)
