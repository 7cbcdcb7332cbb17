# SPDX-License-Identifier: Apache-2.0
"""Generation parameters as text: AUTOMATIC1111's web UI writes it; Civitai and other galleries read it (pure).

The text consists of the prompt, `Negative prompt: ...`, and a last line of at least three `Name: value` pairs. A value
with a comma, a colon or a line break is quoted as JSON.
Source: https://github.com/AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py
"""

import json
from collections.abc import Mapping
from typing import Any

from sd_runtime import __version__

_SAMPLERS = {
    "EulerAncestral": "Euler a",
    "DPMSolverMultistep": "DPM++ 2M",
    "DPMSolverMultistepSDE": "DPM++ 2M SDE",
    "DPMSolverSinglestep": "DPM++ 2S",
    "DPMSolverSinglestepSDE": "DPM++ SDE",
    "PNDM": "PLMS",
}
_QUOTED = set(',:\n"')


def infotext(parameters: Mapping[str, Any]) -> str:
    """Return the infotext of an image; it contains the prompts only where `parameters` contain them."""
    lines = [_plain(parameters["prompt"])] if "prompt" in parameters else []
    if parameters.get("negative_prompt"):
        lines.append(f"Negative prompt: {_plain(parameters['negative_prompt'])}")
    pairs = [f"{name}: {_quoted(value)}" for name, value in _settings(parameters).items() if value != ""]
    return "\n".join([*lines, ", ".join(pairs)])


def _settings(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the pairs of the last line; a value is empty where it is not known."""
    given = {name: "" if value is None else str(value) for name, value in parameters.items()}
    sampler = given.get("scheduler", "")
    size = "x".join(filter(None, (given.get("width", ""), given.get("height", ""))))
    return {
        "Steps": given.get("steps", ""),
        "Sampler": _SAMPLERS.get(sampler, sampler),
        "Schedule type": given.get("sigmas", "").capitalize(),
        "CFG scale": given.get("guidance", ""),
        "Seed": given.get("seed", ""),
        "Size": size if "x" in size else "",
        "Clip skip": _clip_skip(parameters.get("clip_skip")),
        "Model": given.get("model", ""),
        "Model revision": given.get("revision", ""),
        "LoRA": ", ".join(_loras(parameters)),
        "Version": f"sd-runtime {__version__}",
    }


def _clip_skip(skipped: int | None) -> str:
    """Return the number of the layer that is read, counted from the end: 1 is the last, with no layer skipped."""
    return str(skipped + 1) if skipped else ""


def _loras(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the LoRAs, with the strength where the request set it."""
    strengths = parameters.get("lora_strengths", {})
    return [
        f"{name}:{strengths[name]:g}" if name in strengths else name for name in parameters.get("loras", ())
    ]


def _plain(text: str) -> str:
    return text.replace("\0", "").strip()


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if _QUOTED & set(value) else value
