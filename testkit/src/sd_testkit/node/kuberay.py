# SPDX-License-Identifier: Apache-2.0
"""A KubeRay built outside this project, as a Deployment on the real node, with its own manifests and permissions."""

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sd_testkit.cluster.control_plane import ControlPlane
from sd_testkit.json_types import Json
from sd_testkit.node.registry import Registry

_IMAGE = "kuberay:given"
_PROGRAM = "manager"
_USER = 65532
_APPLY = ("apply", "--server-side", "--force-conflicts", "-f", "-")
# This gate is off by default in 1.7. A head that keeps its state on a volume needs it.
_GATES = "--feature-gates=GCSFaultToleranceEmbeddedStorage=true"


@dataclass(frozen=True)
class GivenKubeRay:
    """The KubeRay that `make node KUBERAY=...

    KUBERAY_MANIFESTS=...` names.

    Attributes:
        binary: KubeRay's operator, a static program.
        manifests: a folder for `kubectl kustomize`, such as `ray-operator/config/default`.
    """

    binary: Path
    manifests: Path

    @classmethod
    def named(cls, environment: Mapping[str, str] = os.environ) -> "GivenKubeRay | None":
        """Return the KubeRay that the environment names, or None if there is none.

        Raises:
            RuntimeError: one of the two variables is missing, or its path does not exist.
        """
        binary, manifests = environment.get("KUBERAY", ""), environment.get("KUBERAY_MANIFESTS", "")
        if not binary and not manifests:
            return None
        if not Path(binary).is_file() or not Path(manifests).is_dir():
            raise RuntimeError(
                f"KUBERAY must name KubeRay's binary, and KUBERAY_MANIFESTS the folder of its manifests:"
                f" got {binary!r} and {manifests!r}"
            )
        return cls(Path(binary).resolve(), Path(manifests).resolve())

    def install(self, control_plane: ControlPlane, registry: Registry, folder: Path) -> None:
        """Push the image, apply the manifests, and wait until KubeRay runs.

        The image's layer remains in the folder.

        Raises:
            RuntimeError: KubeRay does not become ready; the message has the state of its pods.
        """
        layer = folder / "kuberay.tar"
        _program_layer(self.binary, layer)
        image = registry.push(_IMAGE, [layer])
        documents = yaml.safe_load_all(control_plane.kubectl("kustomize", str(self.manifests)).stdout)
        items = [_on_the_node(each, image) for each in documents if each]
        manifests = {"apiVersion": "v1", "kind": "List", "items": items}
        control_plane.kubectl(*_APPLY, stdin=json.dumps(manifests))
        control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for each in items:
            if each["kind"] == "Deployment":
                _until_available(control_plane, each["metadata"])


def _on_the_node(body: Json, image: str) -> Json:
    """Adapt the Deployment to the node: the pushed image, which has no user of its own, and the feature gates under test."""
    if body["kind"] != "Deployment":
        return body
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container |= {"image": image, "args": [_GATES]}
    container["securityContext"] |= {"runAsUser": _USER}
    return body


def _until_available(control_plane: ControlPlane, metadata: Json) -> None:
    name, where = f"deployment/{metadata['name']}", ("-n", metadata["namespace"])
    waited = control_plane.kubectl("rollout", "status", name, *where, "--timeout=110s", check=False)
    if waited.returncode:
        told = control_plane.kubectl("describe", "pods", *where).stdout
        raise RuntimeError(f"KubeRay is not available: {waited.stderr}\n{told[-3000:]}")


def _program_layer(binary: Path, target: Path) -> None:
    """Return a tar with the program at the root of the file system."""
    entry = tarfile.TarInfo(_PROGRAM)
    content = binary.read_bytes()
    entry.size, entry.mode = len(content), 0o755
    with tarfile.open(target, "w") as archive:
        archive.addfile(entry, io.BytesIO(content))
