# SPDX-License-Identifier: Apache-2.0
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from sd_runtime import weights as sources
from sd_runtime.config import ModelConfig
from sd_runtime.errors import ConfigError, ModelForbidden, ModelNotFound, ModelUnavailable
from sd_runtime.weights import folder, hub


def fetch(uri, **more):
    return sources.fetch(ModelConfig(uri=uri, **more))


def test_bundled_model_is_a_folder_of_safetensors():
    found = fetch("bundled://shapes")
    assert (found / "unet/diffusion_pytorch_model.safetensors").is_file()
    assert not list(found.rglob("*.bin"))
    assert sum(path.stat().st_size for path in found.rglob("*") if path.is_file()) < 8_000_000


def test_folder(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert fetch(f"file://{tmp_path}") == tmp_path


def test_claim_is_below_its_mount(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "CLAIMS", tmp_path)
    inside = tmp_path / "weights/sd21"
    inside.mkdir(parents=True)
    (inside / "model_index.json").write_text("{}")
    assert fetch("pvc://weights/sd21") == inside
    with pytest.raises(ModelUnavailable, match="must stay inside the claim"):
        fetch("pvc://weights/../other")
    with pytest.raises(ModelUnavailable, match=r"there is no folder .*/nope"):
        fetch("pvc://nope/sd21")


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("s3://bucket/model", ConfigError, "must start with one of bundled://, file://, pvc://, hf://"),
        ("shapes", ConfigError, "must start with one of"),
        ("bundled://nope", ModelUnavailable, "must be bundled:// and one of shapes"),
        ("file:///no/such/folder", ModelUnavailable, "there is no folder"),
        ("file://models/a", ConfigError, "must be file:// and an absolute path"),
        ("pvc://../etc", ConfigError, "must be pvc://CLAIM/PATH"),
        ("pvc:///etc", ConfigError, "must be pvc://CLAIM/PATH"),
    ],
)
def test_wrong_uri_names_value_and_rule(uri, error, says):
    with pytest.raises(error, match=says) as caught:
        fetch(uri)
    assert repr(uri) in str(caught.value)


def test_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match="not a diffusers folder"):
        fetch(f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("index", "present", "says"),
    [
        ("[1]", [], "has a model_index.json that is not a JSON object"),
        ('{"unet": ["diffusers", "UNet2DConditionModel"]}', [], "has no folder unet/"),
        (
            '{"tokenizer": ["transformers", "CLIPTokenizer"]}',
            ["tokenizer/config.json"],
            "has no vocabulary in",
        ),
    ],
)
def test_a_folder_in_part_is_refused(tmp_path, index, present, says):
    (tmp_path / "model_index.json").write_text(index)
    for name in present:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelUnavailable, match=says):
        fetch(f"file://{tmp_path}")


def test_parts_that_a_model_goes_without_are_not_missed(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "X", "safety_checker": [null, null]}')
    assert fetch(f"file://{tmp_path}") == tmp_path


REPOSITORY = {
    "model_index.json": '{"unet": ["diffusers", "UNet2DConditionModel"]}',
    "README.md": "a page",
    "whole-model.safetensors": "w",
    "whole-model.ckpt": "pickle",
    "unet/config.json": "{}",
    "unet/model.safetensors": "w",
    "unet/model.fp16.safetensors": "h",
    "unet/model.non_ema.safetensors": "n",
    "unet/model.bin": "pickle",
    "unet/code.py": "code",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("variant", "weights"),
    [(None, "unet/model.safetensors"), ("fp16", "unet/model.fp16.safetensors")],
    ids=["no variant", "fp16"],
)
def test_hugging_face_gives_safetensors_of_the_variant_and_no_code(variant, weights, hub_at):
    asked = hub_at(_repository)
    found = fetch("hf://owner/name", revision=COMMIT, variant=variant)
    names = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert names == {"model_index.json", "unet/config.json", weights}
    assert all(COMMIT in path for path in asked)


def test_a_component_without_the_variant_comes_in_its_plain_form(hub_at):
    """As diffusers takes it: publishers convert the UNet, and leave the rest as it is."""
    extra = {"vae/config.json": "{}", "vae/model.safetensors": "w", "vae/model.non_ema.safetensors": "n"}
    hub_at(lambda path: _repository(path, REPOSITORY | extra))
    found = fetch("hf://owner/name", revision=COMMIT, variant="fp16")
    names = {str(path.relative_to(found)) for path in found.rglob("*.safetensors")}
    assert names == {"unet/model.fp16.safetensors", "vae/model.safetensors"}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model\.safetensors is a file: must be a folder"):
        fetch(f"file://{tmp_path}/model.safetensors")


def test_the_commit_behind_a_branch_is_known_once_it_is_there(hub_at):
    """What is reported is what was loaded, not what was asked for."""

    def moves(path):
        if path.startswith("/api/models/owner/name/revision/main"):
            return 200, {"Content-Type": "application/json"}, json.dumps({"id": "owner/name", "sha": COMMIT})
        return _repository(path)

    hub_at(moves)
    model = ModelConfig(uri="hf://owner/name", revision="main")
    assert sources.commit(model, sources.fetch(model)) == COMMIT
    assert sources.commit(ModelConfig(uri="file:///x"), Path(f"/x/{COMMIT}")) == "", "a folder has no commits"
    assert sources.commit(model, Path("/x/y")) == ""


def test_what_is_whole_is_used_while_the_hub_is_away(hub_at):
    asked = hub_at(_repository)
    found = fetch("hf://owner/name", revision=COMMIT)
    asked.clear()
    hub_at(lambda _: (503, {}, ""))
    assert fetch("hf://owner/name", revision=COMMIT) == found
    assert not asked


def _repository(path, files_there=REPOSITORY):
    """Status, headers and body of a hub that has one repository at one commit."""
    if path.startswith(f"/api/models/owner/name/tree/{COMMIT}"):
        files = [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body.encode()).hexdigest()}  # noqa: S324 - git's
            for name, body in files_there.items()
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps(files)
    name = path.partition(f"/resolve/{COMMIT}/")[2]
    tag = hashlib.sha256(files_there[name].encode()).hexdigest()
    return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, files_there[name]


@pytest.mark.parametrize(
    ("status", "headers", "error", "says"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, ModelNotFound, r"there is no such repository.*\(HTTP 404\)"),
        (401, {"X-Error-Code": "RepoNotFound"}, ModelNotFound, r"needs tokenSecretRef \(HTTP 401\)"),
        (404, {"X-Error-Code": "RevisionNotFound"}, ModelNotFound, r"no such revision \(HTTP 404\)"),
        (403, {"X-Error-Code": "GatedRepo"}, ModelForbidden, r"gated.*\(HTTP 403\)"),
        (403, {}, ModelForbidden, r"refuses the token of tokenSecretRef \(HTTP 403\)"),
    ],
)
def test_hugging_face_refusals_are_explained(status, headers, error, says, hub_at):
    hub_at(lambda _: (status, headers, ""))
    with pytest.raises(error, match=says):
        fetch("hf://owner/name", revision=COMMIT)


def test_whatever_else_fails_is_told_in_one_line(monkeypatch, tmp_path):
    """Not with a real connection: huggingface_hub tries again for half a minute."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def refuse(*_, **__):
        raise ConnectionError("no route\nfor many reasons")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ModelUnavailable) as caught:
        fetch("hf://owner/name", revision=COMMIT)
    assert (
        str(caught.value)
        == "model.uri: got 'hf://owner/name': the download failed: ConnectionError: no route"
    )


@pytest.fixture
def hub_at(monkeypatch, tmp_path):
    """Start a hub that answers as told; returns the list of paths that it was asked for."""
    servers = []

    def start(respond):
        asked = []

        class Hub(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                asked.append(self.path)
                status, headers, body = respond(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def do_GET(self):
                self.wfile.write(self.do_HEAD().encode())

            def log_message(self, *_):
                """Quiet."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub, "snapshot_download", _at(endpoint, tmp_path / "cache"))
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _at(endpoint, cache):
    """The real download, pointed at a local server; huggingface_hub reads its endpoint at import."""
    return lambda *arguments, **more: snapshot_download(
        *arguments, endpoint=endpoint, cache_dir=cache, **more
    )
