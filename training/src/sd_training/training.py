# SPDX-License-Identifier: Apache-2.0
"""The whole training, stage by stage; every stage resumes from its checkpoint."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional

from sd_training import architecture, encoder, latents, pipeline, team
from sd_training.captions import prompt
from sd_training.loop import SAVE_SECONDS, Chance, Run
from sd_training.pool import Pool, completed, palettes
from sd_training.shapes import KINDS
from sd_training.stages import DecoderStage, Texts, TextStage, UnetStage
from sd_training.team import Team
from sd_training.tokenizer import tokenizer


@dataclass(frozen=True)
class Plan:
    """The length of each stage of the training."""

    text_steps: int = 250
    decoder_steps: int = 3000
    unet_steps: tuple[int, ...] = (8000, 14000)
    """The steps of each round; a further round improves a trained model."""
    seed: int = 0
    masks: int = 3000
    """The number of masks of each shape at 64 px; the larger sizes have fewer."""
    captions: int = 24576


def train(
    plan: Plan, work: Path, device: str, workers: int = 1, save_seconds: float = SAVE_SECONDS
) -> StableDiffusionPipeline:
    """Train the model and return its pipeline; checkpoints and sample pictures are in `work`.

    Raises:
        ValueError: `work` contains a training of another plan.
    """
    work.mkdir(parents=True, exist_ok=True)
    job = partial(_train, plan, work, device, save_seconds)
    with team.of(workers, job) as leader:
        return job(leader)


def _train(plan: Plan, work: Path, device: str, save_seconds: float, member: Team) -> StableDiffusionPipeline:
    run = Run(work, plan.seed, save_seconds, member)
    torch.manual_seed(plan.seed)  # the networks' first weights
    words = tokenizer()
    text, unet, vae = architecture.text_encoder(words), architecture.unet(), architecture.vae()
    pools = {
        side: Pool.drawn(side, max(1, plan.masks // share), Chance.of(plan.seed, "masks", side))
        for side, share in ((64, 1), (128, 2), (256, 8))
    }
    space = _space(pools[64], Chance.of(plan.seed, "space"))
    encoder.write(vae, space)
    run.train(TextStage(text, words, plan.text_steps))
    text.requires_grad_(False).eval()
    vae.to(device, memory_format=torch.channels_last)
    run.train(DecoderStage(vae, space, pools, plan.decoder_steps))
    vae.requires_grad_(False).eval()
    unet.to(device, memory_format=torch.channels_last)
    texts = Texts(text, words, Chance.of(plan.seed, "captions"), plan.captions)
    text.to(device)
    whole = pipeline.assemble(text, words, unet, vae)
    samples = partial(_draw_samples, whole, work / "samples.png")
    for number, steps in enumerate(plan.unet_steps, 1):
        run.train(UnetStage(unet, space, pools, texts, steps=steps, number=number), on_save=samples)
    unet.requires_grad_(False).eval()
    return whole


def _draw_samples(whole: StableDiffusionPipeline, file: Path) -> None:
    """Twelve pictures at 64 px and the same twelve at 128, to look at while training goes on."""
    whole.unet.eval()
    prompts = [prompt(kind) for kind in KINDS[::19]]
    sizes = [pipeline.Sampling(width=side, height=side) for side in (64, 128)]
    images = [image for how in sizes for image in pipeline.draw(whole, prompts, 1, how)]
    pipeline.grid(images, columns=12, cell=96).save(file)
    whole.unet.train()


def _space(pool: Pool, chance: Chance) -> latents.Space:
    whole = completed(torch.full((4096, 4), -1), chance)
    pictures = latents.colour(pool.coverage(whole[:, 0], whole[:, 3], chance), palettes(whole))
    return latents.fit(functional.avg_pool2d(pictures, latents.QUARTER))
