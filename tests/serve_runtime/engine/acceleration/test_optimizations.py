# SPDX-License-Identifier: Apache-2.0
"""The speed switches change no image. A plain call replaces torch's compiler here."""

from dataclasses import replace

import pytest
import torch

from sd_runtime.config import ModelConfig, Optimizations, RuntimeConfig, WarmupShape
from sd_runtime.engine.execution import warmup
from sd_runtime.engine.interface import ImageRequest
from sd_runtime.engine.loader import load
from sd_runtime.engine.sampling.unet_batch import padded_rows
from sd_runtime.errors import ModelUnavailable

RED = ImageRequest("a red circle on a white background", "", 64, 64, 3, 4.0, seed=1)
COMPANY = (replace(RED, seed=2, guidance=1.0), replace(RED, seed=3, negative_prompt="blue"))


def tuned(*shapes, **switches):
    return load(
        RuntimeConfig(
            model=ModelConfig(uri="bundled://shapes"),
            optimizations=Optimizations(**switches),
            warmup=[WarmupShape(width=width, height=height) for width, height in shapes],
        )
    )


@pytest.fixture
def compiled(monkeypatch):
    """Torch's compiler is played by a plain call; with what it was asked for."""
    found = []
    monkeypatch.setattr(torch, "compile", lambda call, **how: (found.append(how), call)[1])
    monkeypatch.setattr(torch._dynamo, "run", lambda call: call)
    return found


def test_without_switches_nothing_is_in_effect(model):
    assert tuned(channels_last=False).tuned.effective == dict.fromkeys(Optimizations.model_fields, False)


def test_what_a_cpu_cannot_have_is_told(model):
    """Graphs need CUDA, and channels last is slower there."""
    effective = tuned(channels_last=True, cuda_graphs=True).tuned.effective
    assert not effective["channels_last"]
    assert not effective["cuda_graphs"]


def test_fused_projections_draw_the_same(bench, model):
    fused = tuned(fuse_qkv=True)
    assert fused.tuned.effective["fuse_qkv"]
    first, second = (bench(each).latents(RED)[0] for each in (fused, model))
    assert (first - second).abs().max() <= 1e-4


def test_compiled_are_unet_and_decoder_for_fixed_shapes(compiled):
    model = tuned(compile=True)
    assert model.tuned.effective["compile"]
    assert [each._name for each in model.tuned.compiled] == ["UNet", "decoder"]
    assert all(how["dynamic"] is False and how["options"] == {"freezing": True} for how in compiled)
    assert len(compiled) == 2


def test_rows_are_padded_to_few_numbers_that_lie_close():
    found = [padded_rows(rows) for rows in range(1, 65)]
    assert sorted(set(found)) == [1, 2, 4, 6, 8, 12, *range(16, 65, 8)]
    assert all(rows <= padded <= 1.42 * rows for rows, padded in enumerate(found, 1))
    assert found == sorted(found)


def test_padding_changes_no_picture(bench, model, compiled, unet_calls):
    padded = tuned(compile=True)
    rows = unet_calls(padded)
    together = bench(padded).latents(RED, *COMPANY)
    assert set(rows) == {6}  # one call: two threads at once would compile anew
    for found, request in zip(together, (RED, *COMPANY), strict=True):
        assert (found - bench(model).latents(request)[0]).abs().max() <= 1e-4


def test_warm_up_draws_each_size_once(monkeypatch):
    drawn = []
    draw = warmup._draw
    monkeypatch.setattr(
        warmup,
        "_draw",
        lambda model, shape, count, guidance: (
            drawn.append((shape.width, shape.height, count)),
            draw(model, shape, count, guidance),
        ),
    )
    model = tuned((64, 64), (96, 64))
    assert drawn == [(64, 64, 1), (96, 64, 1)]
    assert model.seconds["warmup"] > 0
    assert "compile" not in model.seconds


def test_compiled_sizes_are_warmed_for_every_padded_batch(compiled, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        warmup, "_draw", lambda _, shape, count, guidance: drawn.append((shape.width, count, guidance))
    )
    model = tuned(compile=True)
    # Guided images take two rows each: 2, 4, 6, 8, 12 and 16 rows.
    assert drawn == [(64, count, 4.0) for count in (1, 2, 3, 4, 6, 8)] + [(64, 1, 1.0)]
    assert "compile" in model.seconds


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (OSError("no C++\ncompiler"), r"the pipeline failed with OSError: no C\+\+ compiler"),
    ],
    ids=["memory", "foreign"],
)
def test_a_size_that_cannot_be_drawn_fails_the_start(monkeypatch, error, told):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("sd_runtime.engine.sampling.step_noise.StepNoise.first", broken)
    with pytest.raises(ModelUnavailable, match=f"cannot generate an image of 64x64: {told}"):
        tuned((64, 64))
