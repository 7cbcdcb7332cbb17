# SPDX-License-Identifier: Apache-2.0
"""Measure how long `sdservice run --once` takes on this machine, by phase, and compare it with its floor.

    .venv/bin/python benchmarks/local_run.py [--repeat N]

The first run is as cold as this script can make it (compiled modules may exist already); the later runs are warm. `floor`
is the time that cannot be avoided. It contains the start of Ray and the generation, as measured in the run. It also
contains the time in which a program alone on the machine imports torch and diffusers and loads the model, measured after
the run. Figures are seconds; use the ratio to compare machines.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

from sd_operator.api import parse
from sd_operator.local import ray_process, serving
from sd_operator.ray import dashboard

ALONE = """
import json, time
from sd_runtime.config import ModelConfig, RuntimeConfig

began = time.monotonic()
from sd_runtime.engine import DiffusionEngine, load

imported = time.monotonic()
load(RuntimeConfig(model=ModelConfig(uri="bundled://shapes")))
print(json.dumps({"alone: import": imported - began, "alone: load": time.monotonic() - imported}))
"""
EXAMPLE = Path(__file__).parent.parent / "examples/quickstart.yaml"


async def one_run() -> dict[str, float]:
    """Measure the seconds of each phase of one run, `total` included."""
    marks: list[tuple[str, float]] = []
    resource = parse(yaml.safe_load(EXAMPLE.read_text()))
    (port,) = ray_process.free_ports(1)

    def phase(name: str) -> None:
        marks.append((name, time.monotonic()))

    began = time.monotonic()
    async with serving.serve(resource, port, phase) as service:
        phase("draw")
        query = {"prompt": "a red circle", "seed": "1"}
        code, picture = await dashboard.get_bytes(f"{service.url}/imagine", query, 120)
        if code != 200 or not picture.startswith(b"\x89PNG"):  # noqa: PLR2004
            raise RuntimeError(f"no picture: {code}")
        phase("stop")
        load = service.readiness["load_seconds"]
    ended = time.monotonic()
    ends = [at for _, at in marks[1:]] + [ended]
    phases = {name: end - at for (name, at), end in zip(marks, ends, strict=True)}
    to_picture = marks[-1][1] - began
    engine = {f"of which {name}": seconds for name, seconds in load.items()}
    anyway = alone()
    floor = phases["start Ray"] + sum(anyway.values()) + phases["draw"]
    return {
        **phases,
        **engine,
        **anyway,
        "to the picture": to_picture,
        "floor": floor,
        "ratio": to_picture / floor,
    }


def alone() -> dict[str, float]:
    """Measure the seconds of a program that only imports and loads."""
    program = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(program.stdout)
    return figures


def main() -> None:
    """Print one JSON line per run and the median of the warm ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="runs, the first one counted as cold")
    repeat = parser.parse_args().repeat
    print(
        json.dumps(
            {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        )
    )
    runs = []
    for number in range(repeat):
        runs.append(serving.run(one_run()))
        print(
            json.dumps({"run": number, **{name: round(value, 2) for name, value in runs[-1].items()}}),
            flush=True,
        )
    warm = runs[1:] or runs
    names = sorted(set.intersection(*(set(run) for run in warm)))
    print(
        json.dumps(
            {"median of warm runs": {n: round(statistics.median(r[n] for r in warm), 2) for n in names}}
        )
    )


if __name__ == "__main__":
    main()
