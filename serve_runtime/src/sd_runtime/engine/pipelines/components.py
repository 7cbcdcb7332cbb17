# SPDX-License-Identifier: Apache-2.0
"""The networks of a pipeline, each loaded by its own class, with every tensor accounted for.

`DiffusionPipeline.from_pretrained` fills missing tensors with random numbers and ignores unknown ones. Both cases give
meaningless images and only a line on stderr. So each network is loaded alone, with the loading report of its class, and
is then passed to the pipeline. Both libraries omit from that report the tensors that the class declares ignorable, and
tensors that are tied to others.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from sd_runtime.engine import failures
from sd_runtime.engine.failures import listed
from sd_runtime.errors import ModelInvalid, ModelUnavailable

_INDEX = "model_index.json"
# Counters that old releases of transformers wrote into their files: 0, 1, 2, ... by construction.
_CONSTANT = ("position_ids",)
_ADVICE = ". If you want to instead overwrite"

NetworkClass = type[Any]


def load(what: str, folder: Path, *, dtype: torch.dtype, variant: str | None) -> dict[str, torch.nn.Module]:
    """Load the networks that the `model_index.json` of a folder names; the keys are their names there.

    Args:
        what: the field and its value, for error messages.
        folder: a diffusers folder.
        dtype: the dtype of the parameters.
        variant: such as fp16. A component without files of this variant is loaded from its plain files.

    Raises:
        ModelInvalid: a tensor is missing, not known to the class, of another shape, or not a floating-point tensor.
        ModelUnavailable: a component does not load for any other reason.
    """
    return {
        name: _loaded(what, kind, folder / name, dtype=dtype, variant=variant)
        for name, kind in _networks(folder)
    }


def check_finite(what: str, networks: Mapping[str, torch.nn.Module]) -> None:
    """Raise ModelInvalid if a parameter is infinite or NaN; the check reads from the device once per network."""
    for name, network in networks.items():
        tensors = [(each, value) for each, value in network.state_dict().items() if value.is_floating_point()]
        if not tensors:
            continue
        finite = torch.stack([value.isfinite().all() for _, value in tensors]).tolist()
        bad = [each for (each, _), fine in zip(tensors, finite, strict=True) if not fine]
        if bad:
            dtype = str(tensors[0][1].dtype).removeprefix("torch.")
            raise ModelInvalid(
                f"{what}: {name}: {listed(bad)} of {len(tensors)} tensors contain infinite values or NaN in {dtype};"
                " the file is damaged, or model.dtype must be bfloat16 or float32"
            )


def _networks(folder: Path) -> Iterator[tuple[str, NetworkClass]]:
    index = json.loads((folder / _INDEX).read_text("utf-8"))
    for name, entry in index.items():
        if isinstance(entry, list) and all(isinstance(each, str) for each in entry):
            kind = _class(*entry)
            if kind is not None and issubclass(kind, diffusers.ModelMixin | transformers.PreTrainedModel):
                yield name, kind


def _class(library: str, name: str) -> NetworkClass | None:
    """Return the class of a component; None: the pipeline loads it, and reports an error if it has no such class."""
    if library in {"diffusers", "transformers"}:
        found = getattr(importlib.import_module(library), name, None)
    else:
        # The safety checkers and some other classes are in the module of their pipeline.
        found = getattr(getattr(diffusers.pipelines, library, None), name, None)
    return found if isinstance(found, type) else None


def _loaded(
    what: str, kind: NetworkClass, folder: Path, *, dtype: torch.dtype, variant: str | None
) -> torch.nn.Module:
    files = _files(folder, variant)
    ours = issubclass(kind, diffusers.ModelMixin)
    try:
        network, report = kind.from_pretrained(
            folder,
            output_loading_info=True,
            use_safetensors=True,  # None would fall back to pickle, which runs code
            local_files_only=True,
            **({"torch_dtype": dtype} if ours else {"dtype": dtype, "ignore_mismatched_sizes": True}),
            **({"variant": variant} if any(_is_of(file, variant) for file in files) else {}),
        )
    except Exception as error:
        words = failures.one_line(error).partition(_ADVICE)[0]
        raise _failure(error)(f"{what}: {folder.name}/{_names(files)} cannot be loaded: {words}") from error
    problems = [*_problems(report, kind), *_not_floating(network, files)]
    if problems:
        raise ModelInvalid(f"{what}: {folder.name}/{_names(files)} {'; and '.join(problems)}")
    return network


def _failure(error: Exception) -> type[ModelUnavailable]:
    """Return the error class: a class that rejects the contents means a bad file; other errors may be the disk's."""
    return (
        ModelInvalid if isinstance(error, SafetensorError | ValueError | RuntimeError) else ModelUnavailable
    )


def _problems(report: Mapping[str, Any], kind: NetworkClass) -> Iterator[str]:
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    unexpected = [each for each in unexpected if not each.endswith(_CONSTANT)]
    if missing:
        yield f"lacks {listed(missing)}, which a {kind.__name__} needs"
    if unexpected:
        yield f"contains {listed(unexpected)}, which a {kind.__name__} does not have"
    if report["mismatched_keys"]:
        name, found, wanted = min(report["mismatched_keys"])
        yield f"contains {name} of shape {tuple(found)}, but a {kind.__name__} needs {tuple(wanted)}"


def _not_floating(network: torch.nn.Module, files: Iterable[Path]) -> Iterator[str]:
    """Yield a problem for integer tensors in place of floating-point ones; they would load without a warning."""
    known = {name for name, value in network.state_dict().items() if value.is_floating_point()}
    for file in files:
        with safe_open(file, "pt") as tensors:
            stored = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        wrong = sorted(name for name, dtype in stored.items() if _is_integer(dtype) and _known(name, known))
        if wrong:
            yield f"contains {listed(wrong)} as {stored[wrong[0]]}, which must be floating-point numbers"


def _is_integer(dtype: str) -> bool:
    return dtype == "BOOL" or dtype.startswith(("I", "U"))


def _known(name: str, known: set[str]) -> bool:
    """Whether a stored name belongs to a network; older files have an additional prefix, or lack one."""
    return name in known or any(each.endswith(f".{name}") or name.endswith(f".{each}") for each in known)


def _files(folder: Path, variant: str | None) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    plain = [file for file in found if file.name.count(".") == 1]
    return [file for file in found if _is_of(file, variant)] or plain or found


def _is_of(file: Path, variant: str | None) -> bool:
    return bool(variant) and f".{variant}" in file.name


def _names(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else "*.safetensors"
