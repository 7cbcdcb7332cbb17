# SPDX-License-Identifier: Apache-2.0
"""Another version of the operator takes over running services, and the first one takes them back.

Nothing is created again.
"""

import io
import json
import subprocess
import tarfile

import pytest


def earlier(root):
    """The newest release before this commit, by its tag; before the first one, the commit that the project names."""
    command = [
        "git",
        "-C",
        root,
        "describe",
        "--tags",
        "--abbrev=0",
        "--match=v[0-9]*.[0-9]*.[0-9]*",
        "HEAD^",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    lines = (root / "tests/data/earlier-operator.txt").read_text().splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def earlier_operator(root, tmp_path_factory):
    """Folder with the source and the CRD of the earlier operator."""
    revision = earlier(root)
    archive = subprocess.run(
        ["git", "-C", root, "archive", revision, "operator/src", "crds"], capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"this clone does not hold {revision}")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture
def replaced(operator, root, kubectl):
    """Install another version, CRD and operator, as Helm's upgrade and rollback do; the usual one comes back afterwards."""

    def replace(folder=root):
        crd = kubectl("apply", "--server-side", "--force-conflicts", "-f", folder / "crds")
        assert crd.returncode == 0, crd.stderr
        operator.stop()
        operator.start(**({} if folder == root else {"PYTHONPATH": str(folder / "operator/src")}))

    yield replace
    replace()


@pytest.fixture
def made(kubectl, namespace):
    """Who the objects of the service are: uids of children, clusters and pods, but for those that keep images."""

    def read():
        kinds = "rayservice,raycluster,secret,service,pod"
        serving = "!sdservice.dev/preload,app.kubernetes.io/component notin (preload-gpu)"
        uids = "jsonpath={range .items[*]}{.metadata.uid} {end}"
        listed = kubectl("get", kinds, "-n", namespace, "-l", serving, "-o", uids)
        return set(listed.stdout.split())

    return read


async def test_an_upgrade_and_a_downgrade_make_nothing_anew(
    replaced, earlier_operator, serving, apply, service, get, preloads, eventually, condition, made
):
    replaced(earlier_operator)
    await serving()
    await eventually(lambda: condition("ImagesPreloaded")[0] == "True")
    before = made()
    assert get("daemonset", "imagine-preload-gpu"), "it had one of its own"

    replaced()
    # An edit that only the new one can have seen: then it has had its pass.
    apply(service(spec={"limits": {"maxSteps": 33}}))
    await eventually(lambda: "max_steps: 33" in get("rayservice")["spec"]["serveConfigV2"])
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    assert condition("Upgrading")[0] == "False"
    assert made() == before, "a child, a cluster or a pod was made anew"
    # The one that services share has taken over, once it held the image.
    await eventually(lambda: get("daemonset", "imagine-preload-gpu") is None)
    assert len(preloads()) == 1
    assert condition("ImagesPreloaded") == ("True", "ImagesPresent")

    replaced(earlier_operator)
    apply(service(spec={"limits": {"maxSteps": 34}}))
    await eventually(lambda: "max_steps: 34" in get("rayservice")["spec"]["serveConfigV2"])
    await eventually(lambda: condition("ConfigApplied") == ("True", "ApplicationRunning"))
    assert made() == before


async def test_another_default_image_comes_to_one_service_after_the_other(
    operator, apply, service, told, get, eventually
):
    names = ("first", "second")

    def reasons(kind):
        return sorted((told(kind, name) or ("", ""))[1] for name in names)

    for name in names:
        apply(service(metadata={"name": name}))
    await eventually(lambda: reasons("Ready") == ["Serving", "Serving"])
    operator.stop()
    operator.start(SDSERVICE_RUNTIME_TAG="next")
    try:
        await eventually(lambda: reasons("Upgrading") == ["NewClusterStarting", "WaitingForOthers"])
        waiting = next(name for name in names if told("Upgrading", name)[1] == "WaitingForOthers")
        assert ":next" not in json.dumps(get("rayservice", waiting)["spec"])
        assert told("ConfigApplied", waiting)[:2] == ("False", "WaitingForOthers")
        await eventually(lambda: ":next" in json.dumps(get("rayservice", waiting)["spec"]))
        await eventually(lambda: reasons("Upgrading") == ["UpToDate", "UpToDate"])
        assert all(get("sdservice", name)["status"]["image"].endswith(":next") for name in names)
    finally:
        operator.stop()
        operator.start()


async def test_a_field_that_the_next_version_does_not_know_goes_with_it(
    serving, operator, kubectl, namespace, get, eventually
):
    """What a later version applied under our name and this one does not want: as after a downgrade."""
    await serving()
    operator.stop()
    later = get("rayservice")
    later["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["metadata"]["labels"]["later"] = "true"
    fields = {key: later[key] for key in ("apiVersion", "kind", "spec")}
    metadata = {key: later["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    applied = kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=sd-operator", "-f", "-",
        stdin=json.dumps({**fields, "metadata": metadata}),
    )  # fmt: skip
    assert applied.returncode == 0, applied.stderr
    assert "later" in json.dumps(get("rayservice")["spec"])
    operator.start()
    await eventually(lambda: "later" not in json.dumps(get("rayservice")["spec"]))
