# SPDX-License-Identifier: Apache-2.0
"""Sources of LoRAs: a safetensors file, named in the URI or the only one in the root of a folder or repository."""

from pathlib import Path

from sd_runtime.config import Lora, ModelConfig
from sd_runtime.errors import ConfigError, ModelNotFound, ModelUnavailable
from sd_runtime.weights import folder, hub

_USUAL = "pytorch_lora_weights.safetensors"


def fetch(lora: Lora) -> Path:
    """Fetch a LoRA if necessary, and return its local file.

    Raises:
        ConfigError: the scheme of the URI is not supported for LoRAs.
        ModelUnavailable: the weights cannot be fetched.
    """
    scheme, _, path = lora.uri.partition("://")
    inner, name = path, ""
    if path.endswith(".safetensors"):
        inner, _, name = path.rpartition("/")
    if scheme == "hf":
        what = f"loras: {lora.name}: got {lora.uri!r}"
        found = hub.snapshot(
            what, inner, lora.revision, files="lora", allow=["*.safetensors"], ignore=["*/*"]
        )
        return _only(lora, found, name)
    if scheme in {"file", "pvc"}:
        model = ModelConfig(uri=f"{scheme}://{inner}")
        find = folder.fetch if scheme == "file" else folder.fetch_claim
        try:
            found = find(model)
        except (ConfigError, ModelUnavailable) as error:
            words = str(error).partition(f"{model.uri!r}: ")[2] or str(error)
            raise type(error)(f"loras: {lora.name}: got {lora.uri!r}: {words}") from error
        return _only(lora, found, name)
    raise ConfigError(f"loras: {lora.name}: got {lora.uri!r}: must start with one of file://, pvc://, hf://")


def _only(lora: Lora, found: Path, name: str) -> Path:
    files = sorted(found.glob("*.safetensors"))
    chosen = found / (name or (files[0].name if len(files) == 1 else _USUAL))
    if not chosen.is_file():
        raise ModelNotFound(
            f"loras: {lora.name}: got {lora.uri!r}: there is no {chosen.name} in {found};"
            " name the file at the end of the URI"
        )
    return chosen
