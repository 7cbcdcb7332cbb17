# SPDX-License-Identifier: Apache-2.0
"""The VAE's encoder, written rather than trained: it computes `latents.Space` exactly.

A trained encoder took hours to learn hue; this one needs no training. Its blocks pass their input on. The downsamplers
average, and the last one computes the Haar steps of each cell. A value x reaches the end as the pair (x, -x), because
silu(x) - silu(-x) = x. Two large constants keep the last group norm from dividing by the picture's contrast.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from sd_training.architecture import CHANNELS
from sd_training.latents import HAAR, Space

_CONSTANT = 64.0  # the norm's error is CHANNELS / _CONSTANT**2: 0.3 % at most
_LOG_VARIANCE = -20.0  # of the posterior: next to no noise


def write(vae: AutoencoderKL, space: Space) -> None:
    """Overwrite encoder and `quant_conv`, and freeze them."""
    with torch.no_grad():
        _write_encoder(vae.encoder)
        _write_projection(vae.quant_conv, space)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)


def _write_encoder(encoder: nn.Module) -> None:
    for block in [*encoder.down_blocks, encoder.mid_block]:
        for resnet in block.resnets:
            _pass_on(resnet)
    samplers = [sampler.conv for block in encoder.down_blocks for sampler in block.downsamplers or []]
    first, *middle, last = [encoder.conv_in, *samplers]
    _clear(first)
    for colour in range(3):
        first.weight[colour, colour, 1, 1] = 1
    for convolution in middle:
        _clear(convolution)
        for colour in range(3):
            convolution.weight[colour, colour, :2, :2] = 0.25
    _take_steps(last)
    _undo_norm(encoder.conv_norm_out, encoder.conv_out)


def _write_projection(layer: nn.Conv2d, space: Space) -> None:
    _clear(layer)
    layer.weight[:CHANNELS, :CHANNELS, 0, 0] = space.matrix
    layer.bias[:CHANNELS] = space.offset
    layer.bias[CHANNELS:] = _LOG_VARIANCE


def _clear(layer: nn.Conv2d) -> None:
    layer.weight.zero_()
    layer.bias.zero_()


def _pass_on(resnet: nn.Module) -> None:
    """Make a residual block the identity on the channels it takes in."""
    _clear(resnet.conv1)
    _clear(resnet.conv2)
    if resnet.conv_shortcut is not None:
        shortcut: Tensor = resnet.conv_shortcut.weight
        _clear(resnet.conv_shortcut)
        shortcut[:, :, 0, 0] = torch.eye(*shortcut.shape[:2])


def _take_steps(layer: nn.Conv2d) -> None:
    """From three colours to the 12 steps, their negatives, and the two constants."""
    _clear(layer)
    for order, signs in enumerate(HAAR):
        for colour in range(3):
            channel = 3 * order + colour
            layer.weight[channel, colour, :2, :2] = signs.view(2, 2)
            layer.weight[channel + CHANNELS, colour, :2, :2] = -signs.view(2, 2)
    layer.bias[2 * CHANNELS], layer.bias[2 * CHANNELS + 1] = _CONSTANT, -_CONSTANT


def _undo_norm(norm: nn.GroupNorm, layer: nn.Conv2d) -> None:
    """From the normalised pairs back to the steps."""
    norm.weight.fill_(1)
    norm.bias.zero_()
    _clear(layer)
    deviation = (2 * _CONSTANT**2 / norm.num_channels) ** 0.5
    for channel in range(CHANNELS):
        layer.weight[channel, channel, 1, 1] = deviation
        layer.weight[channel, channel + CHANNELS, 1, 1] = -deviation
