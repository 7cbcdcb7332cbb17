# SPDX-License-Identifier: Apache-2.0
"""A UNet call that is split over cores gives the result of one thread."""

import contextlib
import threading

import pytest
import torch

from sd_runtime.engine.acceleration.cpu_rows import CpuRows
from sd_runtime.engine.device import Device

SIDE = 16  # two rows are large enough to be shared out


@pytest.fixture
def calls():
    """Who computed how many rows, on how many threads of torch's."""
    return []


@pytest.fixture
def lanes(calls):
    def call(samples, timesteps, conditions):
        calls.append((threading.current_thread().name, len(samples), torch.get_num_threads()))
        if not torch.is_inference_mode_enabled():
            raise AssertionError("gradients are kept")
        return samples * timesteps[:, None, None, None] + conditions["text"][:, None, None]

    def build(cores, beside=0):
        return CpuRows(call, cores, lambda: beside)

    yield build
    torch.set_num_threads(1)


def inputs(rows, side=SIDE):
    return torch.randn(rows, 4, side, side), torch.arange(rows).float(), {"text": torch.randn(rows, side)}


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_rows_come_back_in_their_order(lanes, rows, cores):
    samples, timesteps, conditions = inputs(rows)
    with torch.inference_mode():
        found = lanes(cores)(samples, timesteps, conditions)
    assert torch.equal(found, samples * timesteps[:, None, None, None] + conditions["text"][:, None, None])


def test_each_core_takes_its_share(lanes, calls):
    with torch.inference_mode():
        lanes(2)(*inputs(5))
    assert sorted(rows for _, rows, _ in calls) == [2, 3]
    assert len({thread for thread, _, _ in calls}) == 2
    assert {threads for _, _, threads in calls} == {1}


def test_cores_without_a_row_of_their_own_help_the_others(lanes, calls):
    with torch.inference_mode():
        lanes(4)(*inputs(2))
    assert [(rows, threads) for _, rows, threads in calls] == [(1, 2), (1, 2)]


@pytest.mark.parametrize(("beside", "shares"), [(1, [2, 3]), (2, [5]), (3, [5])])
def test_a_core_that_computes_something_else_gets_no_share(lanes, calls, beside, shares):
    with torch.inference_mode():
        lanes(3, beside)(*inputs(5))
    assert sorted(rows for _, rows, _ in calls) == shares


def test_what_is_decoded_is_counted_while_it_lasts():
    device = Device("cpu")
    with device.aside([]), device.aside([]):
        assert device.beside() == 2
    with contextlib.suppress(MemoryError), device.aside([]):
        raise MemoryError("no room")
    assert device.beside() == 0


def test_a_small_call_stays_whole(lanes, calls):
    with torch.inference_mode():
        lanes(2)(*inputs(2, side=8))
    assert [rows for _, rows, _ in calls] == [2]


def test_a_share_that_fails_fails_the_call():
    def call(samples, timesteps, conditions):
        if threading.current_thread().name.startswith("lane"):
            raise MemoryError("no room")
        return samples

    with torch.inference_mode(), pytest.raises(MemoryError, match="no room"):
        CpuRows(call, 2, lambda: 0)(*inputs(4))


def test_a_small_call_is_made_on_as_many_threads_whatever_was_before(lanes, calls):
    shared = lanes(4)
    with torch.inference_mode():
        shared(*inputs(1, side=8))
        shared(*inputs(4))
        shared(*inputs(1, side=8))
    assert [threads for _, _, threads in (calls[0], calls[-1])] == [3, 3]
