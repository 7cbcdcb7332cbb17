# SPDX-License-Identifier: Apache-2.0
"""The networks, untrained: a text encoder, a UNet and a VAE, each of the classes that Stable Diffusion uses."""

from typing import Any

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

FACTOR = 8
"""Pixels per latent cell and side."""
CHANNELS = 12
"""Latents per cell: the cell's four quarters in three colours, so that a star's tips survive 8x8 cells."""
SCALING = 2.0
"""Of the latents that the UNet sees. Noise hides 8x8 cells sooner than the 64x64 that Stable Diffusion's noise schedule
was made for; twice the signal makes all of its steps count (arXiv 2301.11093 on resolution and noise)."""
SIDE = 64
"""The model's own picture size in pixels."""
CONTEXT = 64
"""Width of the text embeddings."""


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """0.1 million parameters."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=CONTEXT,
        intermediate_size=2 * CONTEXT,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=CONTEXT,
        max_position_embeddings=tokenizer.model_max_length,
    )
    return CLIPTextModel(config)


def unet() -> UNet2DConditionModel:
    """3.2 million parameters; attention to the text at the coarser of two resolutions.

    Two wide levels make 2.3 times the arithmetic of three narrow ones (48, 64, 96) in 1.5 times the time on a CPU. After
    equal time their error was smaller up to timestep 700, and the same above.
    """
    return UNet2DConditionModel(
        sample_size=SIDE // FACTOR,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(96, 96),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,  # the number of heads, in this class
        cross_attention_dim=CONTEXT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def vae() -> AutoencoderKL:
    """0.4 million parameters; one norm group, which `encoder.write` counts on."""
    return AutoencoderKL(
        block_out_channels=(16, 16, 32, 48),
        layers_per_block=1,
        norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=CHANNELS,
        mid_block_add_attention=False,
        sample_size=SIDE,
        scaling_factor=SCALING,
    )


def scheduler() -> EulerDiscreteScheduler:
    """Stable Diffusion's noise schedule with v-prediction, spaced so that sampling starts at pure noise."""
    return EulerDiscreteScheduler.from_config(
        {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "steps_offset": 1,
            # DDIM and DDPM clip latents to +-1 unless told otherwise, and end one step early.
            "clip_sample": False,
            "set_alpha_to_one": False,
        }
    )


def parameters(module: Any) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
