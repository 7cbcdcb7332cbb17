# SPDX-License-Identifier: Apache-2.0
"""LoRAs: loaded at start, each under its name; the set of a batch is switched on before its UNet call."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from sd_runtime import sources
from sd_runtime.config import Lora
from sd_runtime.diffusion import failures
from sd_runtime.engine import LoraStrengths
from sd_runtime.errors import ConfigError, ModelUnavailable


class Active(NamedTuple):
    """LoRAs that act, and the strengths that differ from the configured ones."""

    names: tuple[str, ...] = ()
    strengths: LoraStrengths = ()


class LoraSwitch:
    """Which of a pipeline's LoRAs are on; used by the thread that draws."""

    def __init__(self, pipeline: Any, loras: tuple[Lora, ...]) -> None:
        self._pipeline = pipeline
        self._strengths = {lora.name: lora.strength for lora in loras}
        self._active: Active | None = None if loras else Active()

    @property
    def active(self) -> Active | None:
        """Those that act; None: unknown."""
        return self._active

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may ask for."""
        return tuple(self._strengths)

    def changed(self, strengths: LoraStrengths) -> LoraStrengths:
        """Those of the strengths that are not the configured ones, sorted."""
        return tuple(sorted((name, each) for name, each in strengths if each != self._strengths[name]))

    def activate(self, names: tuple[str, ...], strengths: LoraStrengths = ()) -> None:
        """Let exactly these act; free if they do already.

        Args:
            names: of LoRAs.
            strengths: of those that act at another strength than the configured one.
        """
        wanted = Active(names, strengths)
        if wanted == self._active:
            return
        self._active = None  # unknown, should it fail half-way
        if names:
            adapters = [adapter(name) for name in names]
            chosen = self._strengths | dict(strengths)
            self._pipeline.set_adapters(adapters, [chosen[name] for name in names])
            self._pipeline.enable_lora()
        else:
            self._pipeline.disable_lora()
        self._active = wanted


def load(pipeline: Any, loras: tuple[Lora, ...]) -> LoraSwitch:
    """Fetch and attach the LoRAs.

    Raises:
        ConfigError: the pipeline takes none.
        ModelUnavailable: one cannot be had or does not fit the model.
    """
    if loras and not hasattr(pipeline, "load_lora_weights"):
        raise ConfigError(f"loras: got {loras[0].name!r}: a {type(pipeline).__name__} takes none")
    for lora in loras:
        _attach(pipeline, lora, sources.fetch_lora(lora))
    return LoraSwitch(pipeline, loras)


def adapter(name: str) -> str:
    """What a LoRA is called inside: module names may hold no dots."""
    return name.replace(".", "_dot_")


def _attach(pipeline: Any, lora: Lora, file: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Several on one model is what we mean.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            pipeline.load_lora_weights(
                file.parent, weight_name=file.name, adapter_name=adapter(lora.name), use_safetensors=True
            )
    except Exception as error:
        raise ModelUnavailable(
            f"loras: {lora.name}: got {lora.uri!r}: it does not fit the model: {failures.one_line(error)}"
        ) from error
    if adapter(lora.name) not in {each for found in pipeline.get_list_adapters().values() for each in found}:
        raise ModelUnavailable(
            f"loras: {lora.name}: got {lora.uri!r}: the file holds no weights for this model"
        )
