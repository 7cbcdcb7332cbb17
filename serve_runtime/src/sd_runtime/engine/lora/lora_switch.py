# SPDX-License-Identifier: Apache-2.0
"""LoRAs are loaded at start, each under its name; the set of a batch is activated before its UNet call.

The text encoders have their own switch, so prompts of one set are encoded while the UNet computes images of another.
"""

import copy
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from diffusers.utils import set_adapter_layers, set_weights_and_activate_adapters
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from sd_runtime import weights
from sd_runtime.config import Lora
from sd_runtime.engine import failures, library_warnings
from sd_runtime.engine.failures import listed
from sd_runtime.engine.interface import LoraStrengths
from sd_runtime.engine.lora import lora_files, targets
from sd_runtime.engine.lora.lora_files import LoraFile, Tensors
from sd_runtime.errors import ConfigError, ModelForbidden, ModelInvalid, ModelNotFound

logger = logging.getLogger(__name__)

# Errors that last until a person changes the file or the spec. Any other error may be temporary: it fails the start, and
# the start is repeated.
_LASTING = (ConfigError, ModelForbidden, ModelInvalid, ModelNotFound)
_UP = ".lora_B.weight"


class Active(NamedTuple):
    """The active LoRAs, and the strengths that differ from the configured ones."""

    names: tuple[str, ...] = ()
    strengths: LoraStrengths = ()


class LoraSwitch:
    """Activates LoRAs in some networks of a pipeline.

    One thread uses it; other threads may use the other networks meanwhile.

    Attributes:
        refused: the reason why a LoRA of the configuration cannot be used, by its name.
        switch_seconds: the duration of the latest switch; 0 before the first.
    """

    def __init__(
        self,
        pipeline: Any,
        loras: tuple[Lora, ...] = (),
        refused: Mapping[str, str] | None = None,
        components: Container[str] | None = None,
    ) -> None:
        """Make the switch for a pipeline whose LoRAs are attached.

        Args:
            pipeline: the pipeline.
            loras: the LoRAs of the configuration.
            refused: the reasons why some of them are not attached, by name.
            components: the names of the networks of this switch; None: all networks.
        """
        self.refused = dict(refused or {})
        self.switch_seconds = 0.0
        self._pipeline = pipeline
        self._loras = loras
        # peft makes attributes of adapter names, and "pop" is an attribute already. So LoRAs have other names there.
        self._adapters = {
            lora.name: adapter(index) for index, lora in enumerate(loras) if lora.name not in self.refused
        }
        self._strengths = {lora.name: lora.strength for lora in loras}
        self._networks = [
            network
            for name, network in pipeline.components.items()
            if _has_loras(network) and (components is None or name in components)
        ]
        self._active: Active | None = None if self._adapters else Active()

    def of(self, *components: str) -> "LoraSwitch":
        """Make a switch of the same LoRAs for some networks; the two switches do not share their state."""
        return LoraSwitch(self._pipeline, self._loras, self.refused, components)

    @property
    def active(self) -> Active | None:
        """The active LoRAs; None: unknown."""
        return self._active

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests may use."""
        return tuple(self._adapters)

    @property
    def singles(self) -> tuple[Active, ...]:
        """For each LoRA, the state in which it alone is active."""
        return tuple(Active((name,)) for name in self._adapters)

    def copy_of(self, network: Any, active: Active) -> Any:
        """Return a copy of a network in which exactly these LoRAs are active; later switches do not change it.

        Args:
            network: a network with the LoRAs attached; its modules are copied, its tensors are shared.
            active: the LoRAs.
        """
        shared = {id(each): each for each in (*network.parameters(), *network.buffers())}
        copied = copy.deepcopy(network, shared)
        if active.names:
            copied.set_adapters(*self._adapters_of(active))
            copied.enable_lora()
        else:
            copied.disable_lora()
        return copied

    def changed(self, strengths: LoraStrengths) -> LoraStrengths:
        """Return the strengths that differ from the configured ones, sorted."""
        return tuple(sorted((name, each) for name, each in strengths if each != self._strengths[name]))

    def activate(self, names: tuple[str, ...], strengths: LoraStrengths = ()) -> None:
        """Activate exactly these LoRAs; the call costs nothing if they are active already.

        Args:
            names: the names of the LoRAs.
            strengths: the strengths that differ from the configured ones.
        """
        wanted = Active(names, strengths)
        if wanted == self._active:
            return
        began = time.monotonic()
        self._active = None  # unknown, if the switch fails half-way
        for network in self._networks:
            if names:
                set_weights_and_activate_adapters(network, *self._adapters_of(wanted))
            set_adapter_layers(network, enabled=bool(names))
        self._active = wanted
        self.switch_seconds = time.monotonic() - began

    def _adapters_of(self, active: Active) -> tuple[list[str], list[float]]:
        """Return the names inside peft, and their strengths."""
        strengths = self._strengths | dict(active.strengths)
        return [self._adapters[name] for name in active.names], [strengths[name] for name in active.names]


def load(pipeline: Any, loras: tuple[Lora, ...]) -> LoraSwitch:
    """Fetch and attach the LoRAs; an unusable LoRA is left out, and the switch keeps the reason.

    Raises:
        ConfigError: the pipeline does not support LoRAs.
        ModelUnavailable: the source of a LoRA does not answer; a retry may succeed.
    """
    if loras and not hasattr(pipeline, "load_lora_weights"):
        raise ConfigError(
            f"loras: got {loras[0].name!r}: must be empty, since a {type(pipeline).__name__} does not support LoRAs"
        )
    refused = {}
    for index, lora in enumerate(loras):
        try:
            _attach(pipeline, lora, weights.fetch_lora(lora), adapter(index))
        except _LASTING as error:
            refused[lora.name] = str(error)
            logger.error("the LoRA %s cannot be used, and requests with it get 400: %s", lora.name, error)  # noqa: TRY400 - a traceback does not help
    return LoraSwitch(pipeline, loras, refused)


def _has_loras(network: Any) -> bool:
    return isinstance(network, torch.nn.Module) and any(
        isinstance(module, LoraLayer) for module in network.modules()
    )


def adapter(index: int) -> str:
    """Return the name of a LoRA inside peft, from its index in the configuration."""
    return f"adapter{index}"


def _attach(pipeline: Any, lora: Lora, file: Path, name: str) -> None:
    warned: list[str] = []
    try:
        with library_warnings.collected() as warned, warnings.catch_warnings():
            # Several LoRAs on one model are intended.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            if getattr(pipeline, "unet", None) is None:
                pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
            else:
                _attach_by_layer(pipeline, lora_files.read(file), name)
        _check_warnings(pipeline, warned, name)
    except Exception as error:
        _detach(pipeline, name)
        words = str(error) if isinstance(error, ModelInvalid) else failures.one_line(error)
        # transformers names the tensor in a warning, but not in the error that follows.
        words = "; ".join([words, *warned])
        raise ModelInvalid(
            f"loras: {lora.name}: got {lora.uri!r}: {file.name} does not fit the model: {words}"
        ) from error


def _check_warnings(pipeline: Any, warned: list[str], name: str) -> None:
    """Raise ModelInvalid if a library has warned, because it has then left a part of the file out."""
    if warned or name not in _attached(pipeline):
        raise ModelInvalid("a part of the file was not applied")


def _attach_by_layer(pipeline: Any, read: LoraFile, name: str) -> None:
    """Attach the layers of the file to the networks to which they belong."""
    for component, tensors in targets.by_component(pipeline, read).items():
        _load(getattr(pipeline, component), tensors, name)
    _check_applied(pipeline, read, name)


def _load(network: Any, tensors: Tensors, name: str) -> None:
    """Load the tensors into a network as an adapter of that name, in the dtype of the network."""
    if isinstance(network, ModelMixin):
        network.load_lora_adapter(tensors, adapter_name=name, prefix=None)
        return
    ranks = {key.removesuffix(_UP): value.shape[1] for key, value in tensors.items() if key.endswith(_UP)}
    settings = LoraConfig(
        r=next(iter(ranks.values())),
        target_modules="|".join(map(re.escape, ranks)),
        rank_pattern={f"^{re.escape(path)}": rank for path, rank in ranks.items()},
    )
    network.load_adapter(adapter_state_dict=tensors, adapter_name=name, peft_config=settings)


def _detach(pipeline: Any, name: str) -> None:
    """Remove the layers that were attached before an error."""
    if name in _attached(pipeline):
        pipeline.delete_adapters(name)


def _attached(pipeline: Any) -> set[str]:
    return {each for found in pipeline.get_list_adapters().values() for each in found}


def _check_applied(pipeline: Any, read: LoraFile, name: str) -> None:
    """Set each layer's scale to 1, and raise ModelInvalid unless every layer of the file is one of the model's.

    The layers are compared by their weights: names change on the way from the file into the model.
    """
    applied: Counter[int] = Counter()
    for network in pipeline.components.values():
        for layer in network.modules() if isinstance(network, torch.nn.Module) else ():
            if isinstance(layer, LoraLayer) and name in layer.lora_A:
                layer.lora_alpha[name], layer.scaling[name] = layer.r[name], 1.0
                applied[_mark(layer.lora_A[name].weight, layer.lora_B[name].weight)] += 1
                dtype = layer.lora_A[name].weight.dtype
    left = []
    for each in read.layers:
        mark = _mark(read.tensors[each.down].to(dtype), read.tensors[each.up].to(dtype))
        applied[mark] -= 1
        if applied[mark] < 0:
            left.append(each.name)
    if left:
        raise ModelInvalid(f"{len(left)} of {len(read.layers)} layers were not applied: {listed(left)}")


def _mark(down: torch.Tensor, up: torch.Tensor) -> int:
    """Return a hash of the weights, independent of their shape.

    The shapes of convolutions and linear layers differ by dimensions of 1.
    """
    return hash(b"".join(each.detach().float().cpu().contiguous().numpy().tobytes() for each in (down, up)))
