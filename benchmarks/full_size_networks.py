# SPDX-License-Identifier: Apache-2.0
"""Networks of the published sizes with random weights; they are as fast as the published networks."""

from importlib.resources import files
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def text_config(width: int, layers: int, heads: int, projection: int, *, tiny: bool) -> CLIPTextConfig:
    """Return the configuration of a CLIP text encoder."""
    if tiny:
        width, layers, heads, projection = 32, 2, 2, 32
    return CLIPTextConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        projection_dim=projection,
    )


def vae(*, tiny: bool) -> AutoencoderKL:
    """Make Stable Diffusion's VAE."""
    channels = (4, 4, 4, 4) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        norm_num_groups=2 if tiny else 32,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def sd21(*, tiny: bool) -> StableDiffusionPipeline:
    """Make Stable Diffusion 2.1, with 866 million parameters in the UNet."""
    unet = UNet2DConditionModel(
        sample_size=96,
        block_out_channels=(8, 8, 16, 16) if tiny else (320, 640, 1280, 1280),
        norm_num_groups=4 if tiny else 32,
        attention_head_dim=2 if tiny else (5, 10, 20, 20),
        cross_attention_dim=32 if tiny else 1024,
        use_linear_projection=True,
    )
    return StableDiffusionPipeline(
        vae=vae(tiny=tiny),
        text_encoder=CLIPTextModel(text_config(1024, 23, 16, 512, tiny=tiny)),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(*, tiny: bool) -> StableDiffusionXLPipeline:
    """Make SDXL, with 2.6 billion parameters in the UNet."""
    projection = 32 if tiny else 1280
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(8, 16, 16) if tiny else (320, 640, 1280),
        norm_num_groups=4 if tiny else 32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1 if tiny else (1, 2, 10),
        attention_head_dim=2 if tiny else (5, 10, 20),
        cross_attention_dim=64 if tiny else 2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8 if tiny else 256,
        projection_class_embeddings_input_dim=6 * 8 + projection if tiny else 2816,
    )
    return StableDiffusionXLPipeline(
        vae=vae(tiny=tiny),
        text_encoder=CLIPTextModel(text_config(768, 12, 12, 768, tiny=tiny)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(1280, 32, 20, projection, tiny=tiny)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )


def tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of the bundled model; any tokenizer serves the purpose."""
    return CLIPTokenizer.from_pretrained(Path(str(files("sd_runtime"))) / "models/shapes/tokenizer")
