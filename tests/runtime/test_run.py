# SPDX-License-Identifier: Apache-2.0
"""`sdservice run` as a user runs it: a separate process, real exit codes, and no leftovers."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
import yaml

from sd_operator.local.ray_process import free_ports


@pytest.fixture
def sdservice(root, tmp_path):
    """Start the command; whatever it starts is marked, and must be gone at the end."""
    command = [sys.executable, "-c", "from sd_operator.cli import main; main()"]
    port = str(free_ports(1)[0])
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [*command, "run", *map(str, arguments), "--port", port],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SDSERVICE_TEST": str(tmp_path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
    assert left_over(str(tmp_path)) == []


def left_over(marker):
    """Processes that inherited the marker of a test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SDSERVICE_TEST") == marker:
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_once_makes_the_picture_and_leaves_nothing(sdservice, tmp_path, looks):
    picture = tmp_path / "out.png"
    prompt = "a red circle on a white background"
    process = sdservice("examples/quickstart.yaml", "--once", prompt, "--seed", 1, "-o", picture)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out == f"{picture}: {picture.stat().st_size} bytes\n"
    for phase in ("start Ray", "apply the Serve config", "start the application", "generate"):
        assert f"{phase}: " in err
    _, shape, _ = looks(picture.read_bytes())
    assert shape[0] > 180
    assert max(shape[1:]) < 90


def test_interrupt_stops_everything_and_exits_130(sdservice):
    process = sdservice("examples/quickstart.yaml")
    for line in process.stderr:
        if line.startswith("start Ray: "):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130


def test_a_model_that_does_not_load_is_told_in_one_line(sdservice, service, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump(service(spec={"model": {"preset": None, "uri": f"file://{folder}"}})))
    process = sdservice(file, "--once", "a red circle")
    _, err = process.communicate(timeout=400)
    assert process.returncode == 1
    assert f"{folder} is not a diffusers folder: it has no model_index.json" in err.splitlines()[-1]
    assert "Traceback" not in err
