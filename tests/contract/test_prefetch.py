# SPDX-License-Identifier: Apache-2.0
"""The runtime understands the command that a preload pod runs."""

import json
import subprocess
import sys

from sd_operator.api import parse
from sd_operator.builders.preload import weights_daemon_sets
from sd_operator.settings import Settings


def test_the_command_of_a_preload_pod_fetches_the_weights(tmp_path, monkeypatch):
    """Run as it stands, by the same shell; the last words would sleep."""
    (tmp_path / "model_index.json").write_text("{}")
    lora = {"name": "ink", "uri": "hf://owner/ink", "revision": "1" * 40}
    spec = {
        "model": {
            "uri": f"file://{tmp_path}",
            "loras": [lora],
            "cache": {"persistentVolumeClaim": {"claimName": "weights"}},
        },
        "replicas": {"max": 1},
    }
    resource = parse(
        {
            "apiVersion": "sdservice.dev/v1alpha1",
            "kind": "StableDiffusionService",
            "metadata": {"name": "imagine", "namespace": "team", "uid": "1", "generation": 1},
            "spec": spec,
        }
    )
    (daemon_set,) = weights_daemon_sets(resource, Settings())
    (weights,) = daemon_set["spec"]["template"]["spec"]["containers"]
    shell, option, script, wanted, *_ = weights["command"]
    monkeypatch.setenv("PATH", f"{sys.exec_prefix}/bin:/usr/bin:/bin")

    def run(config):
        return subprocess.run(
            [shell, option, script, config, "echo", "slept"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    # The LoRA is on no hub that can be reached from here.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused = run(wanted)
    assert refused.returncode == 1
    assert "loras: ink" in refused.stderr
    assert "slept" not in refused.stdout
    alone = json.dumps({**json.loads(wanted), "loras": []})
    assert run(alone).stdout == "slept\n"
