# SPDX-License-Identifier: Apache-2.0
import torch

from sd_training.architecture import scheduler
from sd_training.stages import later

KEPT = scheduler().alphas_cumprod


def noise_to_signal(times):
    return ((1 - KEPT) / KEPT).sqrt()[times]


def test_larger_pictures_are_hidden_by_more_noise_in_proportion():
    times = torch.arange(100, 700, 50)
    for side, factor in ((64, 1.0), (128, 2**0.5), (256, 2.0)):
        shifted = noise_to_signal(later(times, side, KEPT))
        assert torch.allclose(shifted, factor * noise_to_signal(times), rtol=0.02)


def test_the_last_timesteps_stay_where_they_are():
    times = torch.tensor([998, 999])
    assert later(times, 256, KEPT).tolist() == [998, 999]
