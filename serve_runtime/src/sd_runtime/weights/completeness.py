# SPDX-License-Identifier: Apache-2.0
"""A check that a folder contains every part of the pipeline that its `model_index.json` lists.

The tokenizer needs this check most: without its vocabulary the pipeline loads without an error, and prompts have no
effect.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sd_runtime.config import ModelConfig
from sd_runtime.errors import ModelUnavailable

_INDEX = "model_index.json"
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


def check(model: ModelConfig, folder: Path) -> None:
    """Raise ModelUnavailable if a part is missing. The message names the first one."""
    for problem in _problems(folder):
        raise ModelUnavailable(f"model.uri: got {model.uri!r}: {folder} {problem}")


def _problems(folder: Path) -> Iterator[str]:
    if not (folder / _INDEX).is_file():
        yield f"is not a diffusers folder: it has no {_INDEX}"
        return
    try:
        index = dict(json.loads((folder / _INDEX).read_text("utf-8")))
    except (ValueError, TypeError) as error:
        yield f"has a {_INDEX} that is not a JSON object: {error}"
        return
    for name, kind in index.items():
        # [library, class] is a part of the pipeline; [null, null] is a part that this model does not have.
        if not (isinstance(kind, list) and all(kind)):
            continue
        part = folder / name
        if not part.is_dir():
            yield f"has no folder {name}/, which its {_INDEX} lists"
        elif name.startswith("tokenizer") and not any(any(part.glob(each)) for each in _VOCABULARIES):
            yield f"has no vocabulary in {name}/ (one of {', '.join(_VOCABULARIES)})"
