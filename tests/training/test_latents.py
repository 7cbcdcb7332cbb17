# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.nn import functional

from sd_training import architecture, encoder, latents
from sd_training.loop import Chance
from sd_training.pool import Pool, completed, palettes


def pictures(side, count=32):
    chance = Chance.of("pictures", side)
    whole = completed(torch.full((count, 4), -1), chance)
    coverage = Pool.drawn(side, 20, chance).coverage(whole[:, 0], whole[:, 3], chance)
    return latents.colour(coverage, palettes(whole))


@pytest.fixture(scope="module")
def space():
    return latents.fit(functional.avg_pool2d(pictures(64, 512), latents.QUARTER))


def test_latents_have_mean_zero_and_variance_one(space):
    found = space.encode(functional.avg_pool2d(pictures(64, 512), latents.QUARTER))
    assert found.mean().abs() < 1e-4
    assert abs(found.var() - 1) < 1e-2
    deviations = found.std((0, 2, 3))
    assert (deviations.sort(descending=True).values == deviations).all()


@pytest.mark.parametrize("side", [64, 128])
def test_the_written_encoder_computes_the_same(space, side):
    vae = architecture.vae().eval()
    encoder.write(vae, space)
    images = pictures(side)
    with torch.no_grad():
        found = vae.encode(images).latent_dist
    wanted = space.encode(functional.avg_pool2d(images, latents.QUARTER))
    assert (found.mean - wanted).abs().max() < 0.01
    assert found.std.max() < 1e-3
    assert not any(each.requires_grad for each in vae.encoder.parameters())
