# SPDX-License-Identifier: Apache-2.0
"""The denoising thread never waits for the device within a tick.

The tests need no GPU.

The UNet and all tensors of the images are on torch's meta device, which computes shapes only. The
device has no data, so every operation that reads data fails: `.item()`, `.cpu()`, `nonzero`, a branch on a tensor. The
meta device permits copies to the device that the thread would wait for, so a dispatch mode refuses them.
"""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchao.quantization import quant_api

from sd_runtime.engine.acceleration import quantizing
from sd_runtime.engine.device import Device
from sd_runtime.engine.execution.batcher import Batcher, BatchLimits
from sd_runtime.engine.execution.runners import preparation
from sd_runtime.engine.execution.step_batch_runner import StepBatchRunner
from sd_runtime.engine.image_task import tasks
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.sampling.schedulers import SCHEDULERS
from sd_runtime.engine.sampling.unet_batch import UNetBatch, forward
from sd_runtime.observability.observer import Silent

RED = ImageRequest("a red circle on a white background", "", 64, 64, 6, 4.0, seed=1)
COPIES = ("to", "_to_copy", "copy_", "type_as")


class Blocks(Exception):
    """An operation for which a thread would wait for the device."""


class NothingBlocks(TorchDispatchMode):
    """Refuses what brings numbers to the device by a copy that the thread waits for.

    A single number of the host may take part in an operation on the device: it is an argument of the kernel.

    Attributes:
        copies: those that go on by themselves.
    """

    def __init__(self):
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        name = func.overloadpacket.__name__
        if name == "lift_fresh" and result.device.type == "meta":
            raise Blocks("torch.tensor(..., device=...)")
        if len({each.device.type for each in tensors}) > 1:
            self._check(
                func,
                name,
                tensors,
                dict(zip([each.name for each in func._schema.arguments], args, strict=False)) | kwargs,
            )
        return result

    def _check(self, func, name, tensors, arguments):
        if name not in COPIES:
            if any(each.device.type == "cpu" and each.dim() > 0 for each in tensors):
                raise Blocks(f"{func} of a tensor of the host")
        elif not arguments.get("non_blocking"):
            raise Blocks(str(func))
        else:
            self.copies += 1


def test_what_reads_the_device_is_caught():
    there = torch.ones(3, device="meta")
    for read in (torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero, bool, torch.Tensor.tolist):
        with NothingBlocks(), pytest.raises((Blocks, RuntimeError, NotImplementedError)):
            read(there[:1])


@pytest.mark.parametrize("inference", [False, True])
def test_a_blocking_copy_is_caught_and_another_one_counted(inference):
    here, there = torch.ones(3), torch.ones(3, device="meta")
    blocking = (
        lambda: here.to("meta"),
        lambda: here[0].to("meta", torch.float64),
        lambda: there.copy_(here),
        lambda: torch.tensor([1.0], device="meta"),
        lambda: here.type_as(there),
        lambda: there[torch.tensor([0, 1])],
    )
    with torch.inference_mode(inference):
        for copied in blocking:
            with NothingBlocks(), pytest.raises(Blocks):
                copied()
        with NothingBlocks() as mode:
            here.to("meta", non_blocking=True)
            there.copy_(here, non_blocking=True)
            here.to(torch.float64)
            there * here[0]
        assert mode.copies == 2


# For a model whose configuration says nothing of clipping, diffusers' DDPM clips: it steps by itself, and copies its noise.
STEPPED_IN_BATCHES = [
    (kind, name)
    for kind in ("model", "xl_model", "wide_model")
    for name in SCHEDULERS
    if (kind, name) != ("xl_model", "DDPM")
]


def elsewhere(model, unet=None):
    """A denoising loop whose UNet is on the meta device."""
    unet = unet or copy.deepcopy(model.pipeline.unet).to("meta")
    return StepBatchRunner(
        predict=UNetBatch(forward(unet), padded=True),
        loras=model.loras,
        groups=Batcher(),
        budget=BatchLimits(8, 10**9),
        device=Device("meta"),
        observer=Silent(),
    )


def joined(model, denoiser, *requests):
    """Prepared images whose tensors are on the meta device."""
    images = [tasks(request, model.family)[0] for request in requests]
    assert preparation(model, Silent())(images) == []
    for image in images:
        trajectory = image.trajectory
        trajectory.latents, trajectory.memory = trajectory.latents.to("meta"), trajectory.memory.to("meta")
        trajectory.conditions = {name: each.to("meta") for name, each in trajectory.conditions.items()}
        denoiser.join(image)
    return images


@pytest.mark.parametrize(("kind", "name"), STEPPED_IN_BATCHES)
def test_no_tick_waits_for_the_device(request, kind, name):
    """Nor one in which another image joins, of another guidance, or one is cancelled."""
    model = request.getfixturevalue(kind)
    denoiser = elsewhere(model)
    red = replace(RED, scheduler=name)
    first, gone = joined(model, denoiser, red, replace(red, guidance=1.0, seed=2))
    with NothingBlocks() as mode:
        assert denoiser.tick().failed == []
    late = joined(model, denoiser, replace(red, guidance_rescale=0.7, seed=3))
    gone.cancelled = True
    with NothingBlocks():
        while denoiser.tasks():
            assert denoiser.tick().failed == []
    assert mode.copies > 0
    assert first.finished
    assert late[0].finished
    assert first.trajectory.latents.device.type == "meta"


def test_a_tick_of_quantized_layers_does_not_wait_either(monkeypatch, model):
    """Their inputs are scaled by what the device itself finds in them."""
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda _: None)
    unet = copy.deepcopy(model.pipeline.unet).bfloat16()
    quantizing.quantize(SimpleNamespace(unet=unet), "fp8")
    denoiser = elsewhere(model, unet.to("meta"))
    (image,) = joined(model, denoiser, RED)
    conditions = image.trajectory.conditions
    image.trajectory.conditions = {name: each.bfloat16() for name, each in conditions.items()}
    with NothingBlocks():
        while denoiser.tasks():
            assert denoiser.tick().failed == []
    assert image.finished
