# SPDX-License-Identifier: Apache-2.0
import tarfile

import pytest
from typer.testing import CliRunner

from sd_testkit.__main__ import app
from sd_testkit.node import GivenKubeRay, host
from sd_testkit.node.layers import compressed, marked_layer, variant


@pytest.fixture
def layer(tmp_path):
    """A layer of one file."""
    content = tmp_path / "packages"
    (content / "torch").mkdir(parents=True)
    (content / "torch/weights").write_bytes(b"x" * 100_000)
    target = tmp_path / "layer.tar.gz"
    compressed(target, content, ["torch"])
    return target


def entries(path):
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}


def test_variants_of_a_layer_hold_the_same_and_differ(tmp_path, layer):
    for mark in ("1", "2"):
        variant(tmp_path / mark, layer, mark)
        assert entries(tmp_path / mark) == {**entries(layer), "mark": mark.encode()}
    assert (tmp_path / "1").read_bytes() != (tmp_path / "2").read_bytes()


def test_marked_layer_is_one_file(tmp_path):
    marked_layer(tmp_path / "layer", "new")
    assert entries(tmp_path / "layer") == {"mark": b"new"}


@pytest.mark.parametrize(
    ("where", "attribute", "value", "words"),
    [
        ("sys", "platform", "darwin", "a real node needs Linux, not darwin"),
        ("os", "geteuid", lambda: 1000, "a real node needs root: containers, mounts and control groups"),
    ],
    ids=["Linux", "root"],
)
def test_a_host_that_cannot_says_why(monkeypatch, where, attribute, value, words):
    monkeypatch.setattr(getattr(host, where), attribute, value)
    assert host.obstacle() == words


@pytest.mark.parametrize(
    ("arguments", "obstacle", "line"),
    [
        ([], "a real node needs root", "real node: not tried, since a real node needs root"),
        (
            [],
            "",
            "real node: not tried, since this run was not asked for it; this host can run it: make node",
        ),
        (["passed"], "", "real node: tried, passed"),
        (["--obstacle"], "a real node needs root", "a real node needs root"),
        (["--obstacle"], "", ""),
    ],
    ids=["it cannot", "nobody asked", "it was", "why not", "nothing against it"],
)
def test_one_line_says_whether_the_node_was_tried(monkeypatch, arguments, obstacle, line):
    monkeypatch.setattr(host, "obstacle", lambda: obstacle)
    told = CliRunner().invoke(app, ["node", *arguments])
    assert (told.exit_code, told.stdout.strip()) == (0, line)


def test_the_packages_of_the_gate_have_what_the_fault_of_a_wrong_clock_needs():
    assert host.FAKETIME_PACKAGE in CliRunner().invoke(app, ["packages"]).stdout.split()


def test_a_given_kuberay_is_named_by_both_variables_or_by_none(tmp_path):
    binary, manifests = tmp_path / "manager", tmp_path / "manifests"
    binary.touch()
    manifests.mkdir()
    assert GivenKubeRay.named({}) is None
    assert GivenKubeRay.named({"KUBERAY": "", "KUBERAY_MANIFESTS": ""}) is None
    both = {"KUBERAY": str(binary), "KUBERAY_MANIFESTS": str(manifests)}
    assert GivenKubeRay.named(both) == GivenKubeRay(binary, manifests)
    for missing in both:
        with pytest.raises(RuntimeError, match="KUBERAY_MANIFESTS the folder of its manifests"):
            GivenKubeRay.named(both | {missing: "/nowhere"})
