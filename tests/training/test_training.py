# SPDX-License-Identifier: Apache-2.0
"""The command that trains the bundled model, reduced to a minute."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from safetensors.torch import load_file

SMALL = [
    "--text-steps",
    "12",
    "--decoder-steps",
    "8",
    "--unet-steps",
    "30",
    "--masks",
    "40",
    "--captions",
    "256",
]


@pytest.fixture
def training(tmp_path):
    """Start a training in a folder of its own; whatever still runs at the end is killed."""
    started = []

    def start(name, *more):
        folder = tmp_path / name
        command = [sys.executable, "-m", "sd_training", "train", "--no-card", *SMALL, *more]
        process = subprocess.Popen(
            [*command, "--work", folder, "--output", folder / "model"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Threads that wait for each other at every step crawl where other tests have the cores.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process, folder

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


def killed_with(process, file):
    """Kill it once the file is there."""
    deadline = time.monotonic() + 900
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_training_goes_on_to_the_same_weights(training):
    process, whole = training("whole")
    out = finished(process)
    assert "unet: step 30 of 30, loss " in out
    assert "min left" in out
    process, cut = training("cut", "--save-seconds", "1")
    killed_with(process, cut / "unet.pt")
    out = finished(training("cut")[0])
    assert "decoder: step" not in out  # finished before the kill, so only read
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        one, other = (load_file(folder / "model" / f"{part}.safetensors") for folder in (whole, cut))
        assert all((one[name].float() - other[name].float()).abs().max() < 1e-3 for name in one)
    with Image.open(cut / "samples.png") as samples:
        assert samples.size == (12 * 96, 2 * 96)
    settings = json.loads((cut / "model/generation_config.json").read_text())
    assert settings == {"num_inference_steps": 15, "guidance_scale": 4.0}


def test_a_folder_of_another_plan_is_refused_in_one_line(training):
    process, mine = training("mine")
    killed_with(process, mine / "text.pt")
    process, _ = training("mine", "--seed", "5")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 1
    assert "text.pt holds" in err.splitlines()[-1]
