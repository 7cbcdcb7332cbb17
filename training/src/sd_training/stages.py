# SPDX-License-Identifier: Apache-2.0
"""The training stages: first the text encoder alone, then the VAE's decoder, then the UNet with both.

Trained together with the UNet, the text encoder would need hours to separate the words. With four linear heads as
classifiers it needs a minute.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from sd_training import captions
from sd_training.architecture import CONTEXT, SCALING, SIDE, scheduler
from sd_training.latents import QUARTER, Space, colour
from sd_training.loop import Chance
from sd_training.pool import Pool, completed, numbers, palettes
from sd_training.shapes import BACKGROUNDS, COLOURS, OUTLINES, SIZES

_TEXT_BATCH = 48
_POSITIONS = 12
_LAST = 999


class TextStage:
    """Trains the text encoder: every position from the end token on must encode what the caption names."""

    name = "text"
    rate = 3e-3

    def __init__(self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, steps: int) -> None:
        self.steps = steps
        self._encoder, self._tokenizer = encoder, tokenizer
        nn.init.normal_(encoder.get_input_embeddings().weight, std=0.2)
        # One more class each: not named.
        counts = (len(OUTLINES) + 1, len(COLOURS) + 1, len(BACKGROUNDS) + 1, len(SIZES))
        self._heads = nn.ModuleList(nn.Linear(CONTEXT, count) for count in counts)
        self._word = nn.Linear(CONTEXT, len(tokenizer))
        self.module = nn.ModuleList([encoder, self._heads, self._word])

    def loss(self, chance: Chance) -> Tensor:
        """Cross entropy of the four parts, and a little of the words themselves."""
        named = [captions.any_named(chance.rng) for _ in range(_TEXT_BATCH)]
        tokens = _tokens(self._tokenizer, [captions.caption(each, chance.rng) for each in named])
        wanted = numbers(named)
        wanted[:, :3] += 1
        states = self._encoder(tokens)[0]
        after = _from_end_token(self._tokenizer, tokens)
        scores = torch.rand(tokens.shape, generator=chance.tensors).masked_fill(~after, -1)
        chosen = scores.topk(_POSITIONS, 1).indices
        picked = states.gather(1, chosen[..., None].expand(-1, -1, CONTEXT))
        told = sum(
            functional.cross_entropy(
                head(picked).flatten(0, 1), wanted[:, part, None].expand(-1, _POSITIONS).flatten()
            )
            for part, head in enumerate(self._heads)
        )
        return told + 0.2 * functional.cross_entropy(self._word(states[~after]), tokens[~after])


class DecoderStage:
    """Trains the decoder on slightly wrong latents, such as the UNet's, so that it learns clean edges."""

    name = "decoder"
    rate = 2.5e-3

    def __init__(self, vae: AutoencoderKL, space: Space, pools: dict[int, Pool], steps: int) -> None:
        self.steps, self.module = steps, vae
        self._space, self._pools = space, pools

    def loss(self, chance: Chance) -> Tensor:
        """L1 plus squared error of pictures in -1 to 1."""
        side, count = chance.rng.choice([(64, 8), (64, 8), (64, 8), (128, 2)])
        whole = completed(torch.full((count, 4), -1), chance)
        coverage = self._pools[side].coverage(whole[:, 0], whole[:, 3], chance)
        pictures = colour(coverage, palettes(whole)).contiguous(memory_format=torch.channels_last)
        latents = self._space.encode(functional.avg_pool2d(pictures, QUARTER))
        noise = torch.randn(latents.shape, generator=chance.tensors)
        strength = 0.25 * torch.rand(count, 1, 1, 1, generator=chance.tensors)
        device = self.module.device
        decoded = self.module.decode((latents + strength * noise).to(device)).sample
        pictures = pictures.to(device)
        return functional.l1_loss(decoded, pictures) + functional.mse_loss(decoded, pictures)


class UnetStage:
    """Trains the UNet's v-prediction on latents of pictures that fit a caption.

    One stage is one round; each round starts from the averages of the last.
    """

    # Pictures of each size, by latent cells: the same work per step.
    _batches = ((64, 32), (128, 8), (256, 2))

    def __init__(
        self,
        unet: UNet2DConditionModel,
        space: Space,
        pools: dict[int, Pool],
        texts: "Texts",
        *,
        steps: int,
        number: int = 1,
    ) -> None:
        self.steps, self.module = steps, unet
        self.name = "unet" if number == 1 else f"unet-{number}"
        self.rate = 1.8e-3 if number == 1 else 1.2e-3
        # Shape is learned at 64 px first; later rounds draw it at every size.
        self._shares = (0.64, 0.2, 0.16) if number == 1 else (0.5, 0.25, 0.25)
        self._space, self._texts = space, texts
        # Latents depend on quarters of cells only.
        self._pools = {
            side: Pool(functional.avg_pool2d(pool.masks.float(), QUARTER).to(torch.float16))
            for side, pool in pools.items()
        }
        self._kept = scheduler().alphas_cumprod

    def loss(self, chance: Chance) -> Tensor:
        """Squared error of the velocity, as a share of its variance at that time."""
        ((side, count),) = chance.rng.choices(self._batches, self._shares)
        chosen = torch.randint(len(self._texts.named), (count,), generator=chance.tensors)
        whole = completed(self._texts.named[chosen], chance)
        coverage = self._pools[side].coverage(whole[:, 0], whole[:, 3], chance)
        latents = SCALING * self._space.encode(colour(coverage, palettes(whole)))
        times = later(_times(count, chance), side, self._kept)
        noise = torch.randn(latents.shape, generator=chance.tensors)
        kept = self._kept[times][:, None, None, None]
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        noisy, velocity = signal * latents + rest * noise, signal * noise - rest * latents
        # Sampling begins at noise alone, while the schedule's last step still shows a trace of the picture.
        blind = (times == _LAST)[:, None, None, None]
        noisy = torch.where(blind, noise, noisy)
        velocity = torch.where(blind, (signal * noise - latents) / rest, velocity)
        device = self.module.device
        guess = self.module(
            noisy.to(device, memory_format=torch.channels_last),
            times.to(device),
            self._texts.states[chosen].to(device, torch.float32),
        ).sample
        variance = signal**2 + (SCALING * rest) ** 2
        return ((guess - velocity.to(device)) ** 2 / variance.to(device)).mean()


class Texts:
    """Captions and their encodings by the trained text encoder.

    Attributes:
        named: (n, 4), see `pool.numbers`.
        states: (n, 77, 64) in bfloat16.
    """

    def __init__(self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, chance: Chance, count: int) -> None:
        named = [captions.any_named(chance.rng) for _ in range(count)]
        tokens = _tokens(tokenizer, [captions.caption(each, chance.rng) for each in named])
        self.named = numbers(named)
        with torch.no_grad():
            self.states = torch.cat([encoder(part)[0].to(torch.bfloat16) for part in tokens.split(512)])


def _tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(n, 77)."""
    tokens: Tensor = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return tokens


def _from_end_token(tokenizer: CLIPTokenizer, tokens: Tensor) -> Tensor:
    """Return the positions from the end token on: (n, 77) of bool."""
    end = (tokens == tokenizer.eos_token_id).int().argmax(1)
    return torch.arange(tokens.shape[1]) >= end[:, None]


def _times(count: int, chance: Chance) -> Tensor:
    """Timesteps (n,), spread evenly over all of them, over the middle, where shape is decided, and the very last."""
    spread = (torch.arange(count) + torch.rand(count, generator=chance.tensors)) / count
    middle = torch.sigmoid(0.3 + 0.9 * torch.special.ndtri(spread.clamp(1e-4, 1 - 1e-4))) * 1000
    kind = torch.rand(count, generator=chance.tensors)
    times = torch.where(kind < 0.5, spread * 1000, middle).long().clamp(max=_LAST)
    return torch.where(kind > 0.95, _LAST, times)


def later(times: Tensor, side: int, kept: Tensor) -> Tensor:
    """Timesteps at which a larger picture is as hidden as one of 64 px is at `times`.

    A shape comes out of more noise where more cells show it: with twice the side, four times the cells average twice
    the noise away. The root of that factor is taken, for its outline is no easier to see. What would lie past the last
    timestep stays.

    Args:
        times: (n,).
        side: of the picture, in pixels.
        kept: share of the signal's variance at each timestep, falling; a scheduler's `alphas_cumprod`.
    """
    noisiness = ((1 - kept) / kept).sqrt()
    shifted = torch.searchsorted(noisiness, noisiness[times] * (side / SIDE) ** 0.5)
    return torch.where(shifted > _LAST, times, shifted)
