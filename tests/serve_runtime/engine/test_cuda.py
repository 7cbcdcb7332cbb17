# SPDX-License-Identifier: Apache-2.0
"""The GPU code path on a simulated device that checks the use of streams, events, graphs, memory and bfloat16."""

import asyncio
import io
import re
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend

from sd_runtime.config import Batching, LiveConfig, ModelConfig, Optimizations, RuntimeConfig, WarmupShape
from sd_runtime.engine.device import Device
from sd_runtime.engine.diffusion_engine import DiffusionEngine
from sd_runtime.engine.execution import warmup
from sd_runtime.engine.execution.runners import runner
from sd_runtime.engine.interface import ImageRequest, Output, Picture, Preview
from sd_runtime.engine.loader import load
from sd_runtime.engine.postprocess.decode import Decoder
from sd_runtime.engine.sampling import unet_batch
from sd_runtime.observability.observer import Silent
from sd_testkit.fake_cuda import Cuda

RED = ImageRequest("a red circle on a white background", "", 64, 64, 4, 4.0, seed=1)
BLUE = replace(RED, prompt="a blue square on a white background", seed=2)


def loaded(dtype="float32", **extra):
    return load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes", dtype=dtype), **extra))


def pixels(data):
    return torch.tensor(list(Image.open(io.BytesIO(data)).convert("RGB").tobytes())).float()


async def drawn(model, *requests, previews=None):
    """The files of requests that are drawn together."""
    engine = DiffusionEngine(
        model, LiveConfig(batching=Batching(max_batch_size=4, max_wait_milliseconds=500))
    )

    async def one(request):
        async with aclosing(engine.generate(request)) as updates:
            async for update in updates:
                if isinstance(update, Preview) and previews is not None:
                    previews.append(update)
                if isinstance(update, Picture):
                    found = update.data
        return found

    try:
        return await asyncio.gather(*map(one, requests))
    finally:
        engine.close()


def test_pictures_of_the_gpus_path_are_those_of_the_cpus(request, model):
    """Together, with previews, with graphs; nothing overtakes what it needs."""
    requests = (RED, replace(BLUE, output=Output(previews=2)), replace(RED, seed=5, guidance=1.0))
    wanted = asyncio.run(drawn(model, *requests))
    found, previews = request.getfixturevalue("cuda"), []
    model = loaded()
    captured = found.captured
    pictures = asyncio.run(drawn(model, *requests, previews=previews))
    for one, other in zip(pictures, wanted, strict=True):
        assert (pixels(one) - pixels(other)).abs().max() <= 2
    assert len(previews) == 2
    assert captured == found.captured > 0, "nothing is captured while requests wait"
    assert found.replayed > captured, "and what was captured is used"
    assert found.waits > 0


def test_what_is_not_waited_for_is_found():
    """The device itself: work beside, without the event, is a race; so is memory of which the allocator was not told."""
    cuda = Cuda()
    cuda.current = other = type(cuda.default)(cuda)
    cuda.follow()
    try:
        made = torch.ones(2) + 1
        cuda.current = cuda.default
        made + 1
        assert ["does not wait" in each for each in cuda.races] == [True]
        del made
        assert "given back while stream 0 uses it" in cuda.races[1]
        cuda.races.clear()
        cuda.current = other
        made = torch.ones(2) + 1
        cuda.default.wait_stream(other)
        cuda.current = cuda.default
        made + 1
        cuda.current = other
        made.add_(1)
        assert ["writes what stream 0 reads" in each for each in cuda.races] == [True]
        cuda.record(made, cuda.default)
        del made
        assert len(cuda.races) == 1
    finally:
        cuda.leave()


def test_a_decoder_that_does_not_wait_would_be_seen(monkeypatch, cuda):
    monkeypatch.setattr(Device, "wait", lambda *_: None)
    monkeypatch.setattr(type(cuda.default), "wait_event", lambda *_: None)
    asyncio.run(drawn(loaded(), RED))
    assert any("does not wait" in each for each in cuda.races)
    cuda.races.clear()


def test_a_step_that_does_not_wait_for_its_images_to_be_prepared_would_be_seen(monkeypatch, cuda):
    monkeypatch.setattr(Device, "adopt", lambda *_: None)
    asyncio.run(drawn(loaded(), RED))
    assert any("does not wait" in each for each in cuda.races)
    assert any("is given back while" in each for each in cuda.races)
    cuda.races.clear()


def test_denoising_goes_first(cuda):
    """Its stream has priority over those of decoders and of preparing, and there is one for all that draw."""
    asyncio.run(drawn(loaded(), RED))
    assert sum(each.priority < 0 for each in cuda.streams) == 1


def test_a_size_that_was_not_warmed_is_drawn_without_a_graph(cuda):
    model = loaded(warmup=(WarmupShape(width=64, height=64),))
    captured, replayed = cuda.captured, cuda.replayed
    (picture,) = asyncio.run(drawn(model, replace(RED, width=96)))
    assert Image.open(io.BytesIO(picture)).size == (96, 64)
    assert (captured, replayed) == (cuda.captured, cuda.replayed)


def test_bfloat16_is_what_a_gpu_computes_in(cuda, model, bench):
    """Where the GPU has it and the service does not choose; its latents are within 5 % of those of float32."""
    half = loaded(dtype=None)
    assert half.dtype == "bfloat16"
    assert half.pipeline.unet.dtype is torch.bfloat16
    found, wanted = bench(half).latents(RED)[0].float(), bench(model).latents(RED)[0]
    assert (found - wanted).norm() / wanted.norm() <= 0.05


@pytest.mark.parametrize(("has", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch, cuda, has, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has)
    assert Device("cuda").half() == dtype


def test_a_batch_that_does_not_fit_is_halved_and_the_next_one_is_smaller(monkeypatch, cuda):
    model, rows = loaded(optimizations=Optimizations(cuda_graphs=False)), []
    call = model.pipeline.unet.forward

    def limited(samples, *inputs, **settings):
        rows.append(len(samples))
        if len(samples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(samples, *inputs, **settings)

    monkeypatch.setattr(model.pipeline.unet, "forward", limited)
    pictures = asyncio.run(drawn(model, RED, BLUE))
    assert len(pictures) == 2
    assert rows[:3] == [4, 2, 2]
    assert 4 not in rows[3:], "the budget has learned"


def test_a_picture_that_does_not_fit_as_a_whole_is_decoded_in_tiles(monkeypatch, cuda, lines):
    model = loaded(warmup=(WarmupShape(width=64, height=64),))
    vae, tiles = model.pipeline.vae, []
    monkeypatch.setattr(vae, "tile_latent_min_size", 8)
    monkeypatch.setattr(vae, "tile_sample_min_size", 8 * model.pipeline.vae_scale_factor)
    decode = vae.decoder.forward

    def limited(latents, *rest):
        if latents.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        tiles.append(latents.shape)
        return decode(latents, *rest)

    monkeypatch.setattr(vae.decoder, "forward", limited)
    pictures = asyncio.run(drawn(model, replace(RED, width=128), replace(BLUE, width=128)))
    assert [Image.open(io.BytesIO(each)).size for each in pictures] == [(128, 64)] * 2
    assert len(tiles) > 2
    assert sum("in tiles" in each["message"] for each in lines()) == 1


def test_a_picture_of_which_no_tile_fits_fails(monkeypatch, model):
    def never(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.pipeline.vae, "decode", never)
    monkeypatch.setattr(model.pipeline.vae, "tiled_decode", never)
    (failed,) = Decoder(model.pipeline).decode([torch.zeros(1, 4, 8, 8)])
    assert isinstance(failed, torch.OutOfMemoryError)


def test_the_budget_knows_what_the_warm_up_measured(monkeypatch, cuda):
    """Per row and pixel of a call, and what a decoder takes beside it."""
    used = iter(range(0, 10**15, 64 * 64 * 1000))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(used))
    model = loaded(warmup=(WarmupShape(width=64, height=64),))
    assert model.peaks.denoising > 0
    assert model.peaks.decoding > 0
    model.peaks.denoising, model.peaks.decoding = 1000.0, 4000.0
    decoding = 4000 * model.defaults.width * model.defaults.height
    assert runner(model, Silent()).budget.most == int((cuda.free * 0.9 - decoding) / 1000)


def test_attention_tries_cudnn_first_from_hopper_on(monkeypatch, cuda):
    monkeypatch.undo()
    before = torch._C._get_sdp_priority_order()
    for capability, first in (((9, 0), SDPBackend.CUDNN_ATTENTION), ((8, 9), SDPBackend(before[0]))):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        one = Device("cuda")
        one.prefer_kernels()
        assert SDPBackend(torch._C._get_sdp_priority_order()[0]) == first
        one._preferences.close()
    assert torch._C._get_sdp_priority_order() == before


def test_convolutions_are_timed_during_the_warm_up_only(monkeypatch, cuda):
    before, timed, draw = torch.backends.cudnn.benchmark, [], warmup._draw

    def noted(*given):
        timed.append(torch.backends.cudnn.benchmark)
        draw(*given)

    monkeypatch.setattr(warmup, "_draw", noted)
    loaded(warmup=(WarmupShape(width=64, height=64),))
    assert set(timed) == {True}
    assert torch.backends.cudnn.benchmark == before


def test_each_start_chooses_the_order_of_attention_kernels(monkeypatch, cuda):
    chosen = []
    monkeypatch.setattr(Device, "prefer_kernels", lambda device: chosen.append(device.kind))
    loaded()
    assert chosen == ["cuda"]


class HostTensor:
    """A tensor of the host that notes how it is sent."""

    def __init__(self, *, pinned=False):
        self.pinned = pinned

    def pin_memory(self):
        return HostTensor(pinned=True)

    def to(self, device, *, non_blocking):
        return device.type, self.pinned, non_blocking


@pytest.mark.parametrize(
    ("device", "sent"), [("cuda", (True, True)), ("cpu", (False, True)), ("mps", (False, False))]
)
def test_small_tensors_are_sent_from_pinned_memory_and_nobody_waits(device, sent):
    """CUDA copies from any other memory only while the host waits."""
    assert unet_batch._sent(HostTensor(), torch.device(device)) == (device, *sent)


def test_the_image_sets_an_allocator_that_torch_knows(root):
    """Its segments grow, so that batches of changing sizes leave no gaps that none fits into."""
    (wanted,) = re.findall(r"PYTORCH_ALLOC_CONF=(\S+)", (root / "Dockerfile.worker").read_text())
    assert wanted == "expandable_segments:True"
    before = torch._C._accelerator_getAllocatorSettings()
    try:
        torch._C._accelerator_setAllocatorSettings(wanted)
        assert torch._C._accelerator_getAllocatorSettings() == wanted
    finally:
        torch._C._accelerator_setAllocatorSettings(before)
    with pytest.raises(ValueError, match="Unrecognized key"):
        torch._C._accelerator_setAllocatorSettings("expandable:True")
