# SPDX-License-Identifier: Apache-2.0
"""Idle cores decode images, and each image fails on its own."""

import threading
from types import SimpleNamespace

import pytest
import torch

from sd_runtime.engine.device import Device
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.errors import GenerationFailed


class Vae:
    """Gives latents of three channels back as pixels; those of 9 are too much for it."""

    dtype = torch.float32
    config = SimpleNamespace(scaling_factor=1.0, latents_mean=None, latents_std=None)

    def __init__(self):
        self.calls = []

    def decode(self, latents, *, return_dict):
        self.calls.append((threading.current_thread().name.startswith("lane"), len(latents)))
        if (latents == 9).any():
            raise ValueError("no image")
        return (latents,)


@pytest.fixture
def decoded():
    """Decode images of one shade each with so many cores to spare; what came of them, and the calls of the VAE."""

    def decode(shades, spare):
        vae = Vae()
        decoder = Decoder(SimpleNamespace(vae=vae), 3, lambda: spare)
        with torch.inference_mode():
            results = decoder.decode([torch.full((1, 3, 8, 8), float(shade)) for shade in shades])
        told = [each if isinstance(each, Exception) else each.getpixel((0, 0))[0] for each in results]
        return told, sorted(vae.calls)

    return decode


@pytest.mark.parametrize(
    ("spare", "calls"),
    [(1, [(False, 5)]), (2, [(False, 3), (True, 2)]), (3, [(False, 2), (True, 1), (True, 2)])],
)
def test_each_core_to_spare_takes_its_share(decoded, spare, calls):
    shades = (-1, -0.5, 0, 0.5, 1)
    assert decoded(shades, spare) == ([0, 64, 128, 191, 255], calls)


def test_one_image_is_decoded_whole(decoded):
    assert decoded((1,), spare=3) == ([255], [(False, 1)])


def test_an_image_that_fails_on_another_core_fails_alone(decoded):
    (first, second, broken, odd), _ = decoded((-1, 1, 9, float("nan")), spare=2)
    assert (first, second) == (0, 255)
    assert isinstance(broken, ValueError)
    assert isinstance(odd, GenerationFailed)


def test_while_images_are_drawn_one_core_is_left(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    device = Device("cpu")
    assert device.spare() == 4
    device.at_work = True
    assert device.spare() == 1
    assert Device("cuda").spare() == 1
