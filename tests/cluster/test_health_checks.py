# SPDX-License-Identifier: Apache-2.0
"""The health checks of docs/gitops.md, without a cluster.

That of Argo CD runs in the Lua version that Argo CD uses.
"""

import json
import re
import subprocess

import pytest

from sd_operator.api.status import ConditionType, Reason
from sd_testkit.programs import ensure

RUN = """
local function health()
{script}
end
local found = health()
print(found.status)
print(found.message)
"""


def literal(value):
    """A Lua table, string or number."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(literal, value)) + "}"
    return json.dumps(value)


@pytest.fixture
def health(root, tmp_path):
    script = (root / "docs/argo-cd-health.lua").read_text()

    def run(status, generation=2):
        obj = {"metadata": {"generation": generation}} | ({} if status is None else {"status": status})
        program = tmp_path / "health.lua"
        program.write_text(f"obj = {literal(obj)}\n{RUN.format(script=script)}")
        command = [str(ensure("glua")), str(program)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return tuple(done.stdout.splitlines())

    return run


def status(seen=2, **conditions):
    states = {"Ready": "True/Serving", "Accepted": "True/Accepted", "Suspended": "False/Running"} | conditions
    found = [dict(zip(("status", "reason"), each.split("/"), strict=True)) for each in states.values()]
    found = [{"type": kind, "message": "m", **each} for kind, each in zip(states, found, strict=True)]
    return {"observedGeneration": seen, "conditions": found}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, "Progressing"),
        (status(seen=1), "Progressing"),
        ({"observedGeneration": 2}, "Progressing"),
        (status(), "Healthy"),
        (status(Ready="True/ScaledToZero"), "Healthy"),
        (status(Ready="True/Degraded"), "Degraded"),
        (status(Ready="False/Starting"), "Progressing"),
        (status(Ready="False/Unschedulable"), "Progressing"),
        (status(Ready="False/ModelNotFound"), "Degraded"),
        (status(Accepted="False/KubeRayRefused"), "Degraded"),
        (status(Ready="False/Suspended", Suspended="True/Suspended"), "Suspended"),
    ],
    ids=str,
)
def test_argo_cd(health, given, wanted):
    assert health(given)[0] == wanted


def test_argo_cd_shows_reason_and_message(health):
    assert health(status(Ready="False/Starting"))[1] == "Starting: m"


@pytest.mark.parametrize("name", ["gitops.md", "argo-cd-health.lua"])
def test_the_checks_name_reasons_and_conditions_that_exist(root, name):
    text = (root / "docs" / name).read_text()
    reasons = re.findall(r"(\w+) = true", text)
    for quoted in re.findall(r"c\.reason in \[(.*?)\]", text, re.DOTALL):
        reasons += re.findall(r"'(\w+)'", quoted)
    assert reasons
    assert set(reasons) <= set(Reason)
    types = re.findall(r"c\.type == '(\w+)'", text) + re.findall(r"found\.([A-Z]\w+)", text)
    assert types
    assert set(types) <= set(ConditionType)


def test_flux_and_argo_cd_agree_on_what_a_person_has_to_act_on(root):
    lua = set(re.findall(r"(\w+) = true", (root / "docs/argo-cd-health.lua").read_text()))
    flux = re.search(r"c\.reason in \[(.*?)\]", (root / "docs/gitops.md").read_text(), re.DOTALL)
    assert lua - {"Degraded"} == set(re.findall(r"'(\w+)'", flux[1])), "Degraded is Ready=True and not failed"
