# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def sdservice(root):
    """The command as a user runs it: own process, real exit code."""

    def run(*arguments, stdin=""):
        command = [sys.executable, "-c", "from sd_operator.cli import main; main()", *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, cwd=root, timeout=120, check=False
        )

    return run


@pytest.fixture
def file(tmp_path):
    def write(*bodies):
        path = tmp_path / "services.yaml"
        path.write_text(yaml.safe_dump_all(bodies))
        return path

    return write


def test_every_example_is_valid(sdservice, root):
    examples = sorted((root / "examples").glob("*.yaml"))
    result = sdservice("validate", *examples)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("is valid") >= len(examples)


def test_invalid_input_exits_3_and_says_field_value_and_rule(sdservice, service, file):
    result = sdservice("validate", file(service(), service(spec={"gpusPerReplica": 9})))
    assert result.returncode == 3
    assert "document 1: imagine is valid" in result.stdout
    assert "document 2: spec.gpusPerReplica: got 9: Input should be less than or equal to 8" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_invalid_document_is_reported(sdservice, service, file):
    broken = [service(spec={"gpusPerReplica": 9}), service(spec={"typo": 1})]
    result = sdservice("validate", file(*broken))
    assert "document 1: spec.gpusPerReplica" in result.stderr
    assert "document 2: spec.typo: unknown field" in result.stderr


def test_standard_input(sdservice, service):
    result = sdservice("validate", "-", stdin=yaml.safe_dump(service()))
    assert (result.returncode, result.stdout) == (0, "-, document 1: imagine is valid\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "YAML"),
        ("kind: Pod", "has no document of kind StableDiffusionService"),
        ("", "has no document of kind StableDiffusionService"),
        ("- 1", "must be a mapping"),
        ("kind: StableDiffusionService\nkind: Pod", "duplicate key 'kind'"),
    ],
    ids=["broken", "other kind", "empty", "list", "key twice"],
)
def test_what_is_not_a_service_exits_3(sdservice, text, says):
    result = sdservice("validate", "-", stdin=text)
    assert result.returncode == 3
    assert says in result.stderr


def test_a_file_that_cannot_be_read_hides_no_other_error(sdservice, service, file):
    result = sdservice("validate", "no-such-file.yaml", file(service(spec={"gpusPerReplica": 9})))
    assert result.returncode == 3
    assert "cannot read no-such-file.yaml" in result.stderr
    assert "document 1: spec.gpusPerReplica" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_file_exits_1_in_one_line(sdservice):
    result = sdservice("validate", "no-such-file.yaml")
    assert result.returncode == 1
    assert (
        result.stderr
        == "sdservice: cannot read no-such-file.yaml: [Errno 2] No such file or directory: 'no-such-file.yaml'\n"
    )


@pytest.mark.parametrize("arguments", [["validate"], ["frobnicate"], ["run", "a.yaml", "--port", "no"]])
def test_usage_exits_2(sdservice, arguments):
    assert sdservice(*arguments).returncode == 2


def test_render_prints_every_object_and_no_token(sdservice):
    result = sdservice("render", "examples/quickstart.yaml", "-n", "team")
    bodies = list(yaml.safe_load_all(result.stdout))
    assert [body["kind"] for body in bodies] == ["Secret", "NetworkPolicy", "DaemonSet", "RayService"]
    assert {body["metadata"]["namespace"] for body in bodies} == {"team"}
    assert not {"data", "stringData"} & set(bodies[0])
    assert sdservice("render", "examples/quickstart.yaml", "-n", "team").stdout == result.stdout


def test_crd_is_the_generated_file(sdservice, root):
    assert sdservice("crd").stdout == (root / "crds/sdservice.dev_stablediffusionservices.yaml").read_text()


def test_run_refuses_what_cannot_run_here(sdservice, service, file):
    claim = service(spec={"model": {"preset": None, "uri": "pvc://weights/sd21"}})
    result = sdservice("run", file(claim))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "sdservice: spec.model.uri: got pvc://weights/sd21:"
        " a local run cannot read a PersistentVolumeClaim: use file:///path"
    )
