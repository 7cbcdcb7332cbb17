# SPDX-License-Identifier: Apache-2.0
"""Running helm, and what the chart renders."""

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
    """Run helm; without a kubeconfig it knows no cluster, whatever the environment says."""
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
    """What `helm install` would send, hooks included, as YAML documents.

    Raises:
        RuntimeError: the values are refused, or a template fails; with helm's words.
    """
    given = ("--namespace", namespace, "--values", "-")
    return helm("template", release, chart, *given, stdin=yaml.safe_dump(values or {})).stdout


def rendered(values: Json | None = None, *, namespace: str = _NAMESPACE) -> list[Json]:
    """The same as objects."""
    documents = yaml.load_all(template(values, namespace=namespace), Loader=yaml.CSafeLoader)
    return [body for body in documents if body]
