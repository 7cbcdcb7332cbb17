# SPDX-License-Identifier: Apache-2.0
"""The source `bundled://NAME`: a model inside this package."""

from importlib.resources import files
from pathlib import Path

from sd_runtime.config import ModelConfig
from sd_runtime.errors import ModelNotFound


def fetch(model: ModelConfig) -> Path:
    """The folder of the model inside the package."""
    name = model.uri.removeprefix("bundled://")
    shipped = Path(str(files("sd_runtime"))) / "models"
    names = sorted(path.name for path in shipped.iterdir() if path.is_dir())
    if name not in names:
        raise ModelNotFound(f"model.uri: got {model.uri!r}: must be bundled:// and one of {', '.join(names)}")
    return shipped / name
