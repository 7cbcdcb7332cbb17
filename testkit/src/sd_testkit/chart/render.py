# SPDX-License-Identifier: Apache-2.0
"""Runs helm and renders the chart."""

import os
import subprocess
from pathlib import Path

import yaml

from sd_testkit.json_types import Json
from sd_testkit.programs import ROOT, ensure

CHART = ROOT / "charts" / "stable-diffusion-operator"
_NAMESPACE = "sdservice-system"


def helm(
    *arguments: str | Path,
    kubeconfig: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run helm. Without a kubeconfig helm has no cluster, regardless of the environment."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    result = subprocess.run(
        [ensure("helm"), *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if check and result.returncode:
        raise RuntimeError(f"helm {arguments[0]}: {result.stderr}")
    return result


def template(
    values: Json | None = None,
    *,
    release: str = "sdservice",
    namespace: str = _NAMESPACE,
    chart: Path = CHART,
) -> str:
    """The objects that `helm install` would send, including hooks, as YAML documents.

    Raises:
        RuntimeError: helm refuses the values, or a template fails. The error has helm's message.
    """
    given = ("--namespace", namespace, "--values", "-")
    return helm("template", release, chart, *given, stdin=yaml.safe_dump(values or {})).stdout


def rendered(values: Json | None = None, *, namespace: str = _NAMESPACE) -> list[Json]:
    """The objects that `helm install` would send, as dicts."""
    documents = yaml.load_all(template(values, namespace=namespace), Loader=yaml.CSafeLoader)
    return [body for body in documents if body]
