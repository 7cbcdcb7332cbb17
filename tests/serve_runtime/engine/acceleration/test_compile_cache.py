# SPDX-License-Identifier: Apache-2.0
"""Compiled torch code is stored beside the weights. The compiler is real and runs in separate processes."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from sd_runtime.config import ModelConfig
from sd_runtime.engine.acceleration import compile_cache

START = """
import json, torch
from sd_runtime.config import ModelConfig
from sd_runtime.engine.acceleration import compile_cache
compile_cache.use(ModelConfig(uri="hf://a/b", revision="main"), "cpu")
layer = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.SiLU())
layer.compile(dynamic=False, options={"freezing": True})  # as on a CPU
with torch.inference_mode():
    layer(torch.ones(1, 4, 8, 8))
counted = torch._dynamo.utils.counters["inductor"]
print(json.dumps([counted["fxgraph_cache_miss"], counted["fxgraph_cache_hit"]]))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs with g++, which is not here")
def test_the_second_start_compiles_nothing(tmp_path):
    # One small graph: no pool of compilers, no headers compiled ahead.
    quick = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
    environment = {**os.environ, **quick, compile_cache.VARIABLE: str(tmp_path)}

    def start():
        done = subprocess.run(
            [sys.executable, "-c", START],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return json.loads(done.stdout.splitlines()[-1])

    assert start() == [1, 0]
    assert start() == [0, 1]


@pytest.fixture
def variables(monkeypatch, tmp_path):
    """The environment, as it was before and after."""
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
    return os.environ


def test_each_model_has_a_folder_of_its_own(variables, tmp_path):
    models = [
        ModelConfig(uri="hf://a/b", revision="0" * 40),
        ModelConfig(uri="hf://a/b", revision="1" * 40),
        ModelConfig(uri="hf://a/b", revision="1" * 40, quantization="fp8"),
        ModelConfig(uri="file:///weights/../b"),
    ]
    folders = {compile_cache.use(model, "cpu") for model in models}
    assert len(folders) == 4
    assert all(folder.resolve().is_relative_to(tmp_path) for folder in folders)
    assert variables["TORCHINDUCTOR_CACHE_DIR"] in {str(folder) for folder in folders}


def test_without_a_place_torch_keeps_its_own(variables, monkeypatch):
    monkeypatch.delenv(compile_cache.VARIABLE)
    assert compile_cache.use(ModelConfig(uri="bundled://shapes"), "cpu") is None
    assert variables["TORCHINDUCTOR_CACHE_DIR"] == "before"
