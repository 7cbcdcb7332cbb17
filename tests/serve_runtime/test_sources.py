# SPDX-License-Identifier: Apache-2.0
import http.server
import threading

import pytest
from huggingface_hub import snapshot_download

from sd_runtime import sources
from sd_runtime.config import ModelConfig
from sd_runtime.errors import ConfigError, ModelUnavailable
from sd_runtime.sources import folder, hub


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
    with pytest.raises(ModelUnavailable, match="leaves the claim"):
        fetch("pvc://weights/../other")


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("s3://bucket/model", ConfigError, "must begin with one of bundled://, file://, pvc://, hf://"),
        ("shapes", ConfigError, "must begin with one of"),
        ("bundled://nope", ModelUnavailable, "bundled are shapes"),
        ("file:///no/such/folder", ModelUnavailable, "there is no folder"),
    ],
)
def test_wrong_uri_names_value_and_rule(uri, error, says):
    with pytest.raises(error, match=says) as caught:
        fetch(uri)
    assert repr(uri) in str(caught.value)


def test_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match="no diffusers folder"):
        fetch(f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "there is no such repository"),
        (404, {"X-Error-Code": "RevisionNotFound"}, "no such revision"),
        (403, {"X-Error-Code": "GatedRepo"}, "gated"),
    ],
)
def test_hugging_face_refusals_are_explained(status, headers, says, monkeypatch, tmp_path):
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - named by http.server

        def log_message(self, *_):
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub, "snapshot_download", _at(endpoint, tmp_path))
    try:
        with pytest.raises(ModelUnavailable, match=says):
            fetch("hf://owner/name", revision="0" * 40)
    finally:
        server.shutdown()
        server.server_close()


def _at(endpoint, cache):
    """The real download, pointed at a local server; huggingface_hub reads its endpoint at import."""
    return lambda *arguments, **more: snapshot_download(
        *arguments, endpoint=endpoint, cache_dir=cache, **more
    )
