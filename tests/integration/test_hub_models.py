"""Models of a hub, from a small real HTTP server that speaks the hub's protocol: mirror, offline, errors, pinning."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from generation import catalog
from generation.chat.config import ChatConfig
from generation.chat.loading import load
from generation.errors import ModelCorruptError
from generation.image.config import ImageConfig
from generation.image.loading import load as load_image_model
from tests import diffusers_pipelines
from tests.chat_models import byte_tokenizer, tiny_model

COMMIT = "1234567890" * 4
TOKEN = "hf_a_made_up_token"


class Hub(ThreadingHTTPServer):
    """One server; its repositories are files by name, its refusals statuses and error codes by repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.tokens.add(self.headers.get("authorization"))
        api = re.match(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/?]+)", self.path)
        file = re.match(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", self.path)
        found = api or file
        repo, revision = (found[1], found[2]) if found else ("", "")
        if repo in self.server.refusals:
            return self._send(*self.server.refusals[repo])
        if repo not in self.server.repos:
            return self._send(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._send(404, "RevisionNotFound")
        files = self.server.repos[repo]
        if api and "/tree/" in self.path:
            tree = [{"type": "file", "path": name, "size": len(data), "oid": ""} for name, data in files.items()]
            return self._send(200, body=json.dumps(tree).encode(), with_body=with_body)
        if api:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            info = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0}
            return self._send(200, body=json.dumps(info).encode(), with_body=with_body)
        data = files.get(file[3]) if file else None
        if data is None:
            return self._send(404, "EntryNotFound")
        return self._send(200, body=data, with_body=with_body)

    def _send(self, status: int, code: str = "", body: bytes = b"", *, with_body: bool = True) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{hashlib.sha1(body).hexdigest()}"')  # noqa: S324 - what the hub uses for small files
        self.send_header("x-repo-commit", COMMIT)
        if code:
            self.send_header("x-error-code", code)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    directory = tmp_path / "published"
    tiny_model("qwen3").save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    with Hub() as server:
        server.repos["org/tiny"] = files | {
            "onnx/model.onnx": b"x" * 100,
            "pytorch_model.bin": b"pickle",
            "README.md": b"#",
        }
        server.repos["org/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
        server.repos["org/data"] = {"README.md": b"#"}
        server.refusals["org/gated"] = (403, "GatedRepo")
        server.refusals["org/broken"] = (500, "")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def palaver(tmp_path: Path, endpoint: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``palaver models`` with its own data, cache and mirror: the library reads those at import."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "PALAVER_DATA_DIR": str(tmp_path / "data"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": endpoint,
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", **variables}
    command = [sys.executable, "-m", "bots.cli", "models", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_model_of_a_mirror_is_pulled_pinned_loaded_kept_offline_and_removed(hub, tmp_path):
    done = palaver(tmp_path, hub.url, "pull", "org/tiny", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"Bearer {TOKEN}" in hub.tokens
    fetched = {path.rpartition("/")[2] for method, path in hub.asked if method == "GET" and "/resolve/" in path}
    assert "model.safetensors" in fetched
    assert not fetched & {"model.onnx", "pytorch_model.bin", "README.md"}, "only what is needed"

    data_dir = tmp_path / "data"
    (record,) = catalog.installed(data_dir)
    assert record.revision == COMMIT, "the commit that main meant is recorded"
    loaded = load(ChatConfig(model="org/tiny", data_dir=data_dir, device="cpu"), lambda *_: None)
    assert (loaded.name, loaded.model.config.model_type) == ("org/tiny", "qwen3")

    asked = len(hub.asked)
    assert palaver(tmp_path, hub.url, "pull", "org/tiny", HF_HUB_OFFLINE="1").returncode == 0
    (data_dir / "models" / "org--tiny" / "palaver-model.json").unlink()
    assert palaver(tmp_path, hub.url, "pull", "org/tiny", HF_HUB_OFFLINE="1").returncode == 0
    assert len(hub.asked) == asked, "offline asks nobody, and the cache of other tools counts"
    assert catalog.installed(data_dir) == [record]

    weights = Path(record.directory) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    assert "wrong SHA-256" in palaver(tmp_path, hub.url, "verify", "org/tiny").stderr
    assert "wrong SHA-256" in palaver(tmp_path, hub.url, "pull", "org/tiny", HF_HUB_OFFLINE="1").stderr
    weights.write_bytes(content[:-1])
    with pytest.raises(ModelCorruptError, match="palaver models pull org/tiny"):
        load(ChatConfig(model="org/tiny", data_dir=data_dir, device="cpu"), lambda *_: None)
    done = palaver(tmp_path, hub.url, "pull", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert palaver(tmp_path, hub.url, "verify", "org/tiny").returncode == 0
    assert weights.read_bytes() == content

    assert palaver(tmp_path, hub.url, "rm", "org/tiny").returncode == 0
    assert not Path(record.directory).exists()
    assert catalog.installed(data_dir) == []


def test_a_pipeline_is_pulled_by_component_in_one_format_and_precision(hub, tmp_path):
    published = tmp_path / "pipeline"
    diffusers_pipelines.make("stable-diffusion").save_pretrained(published)
    files = {str(path.relative_to(published)): path.read_bytes() for path in published.rglob("*") if path.is_file()}
    weights = "unet/diffusion_pytorch_model"
    hub.repos["org/image"] = files | {
        f"{weights}.fp16.safetensors": b"half",
        f"{weights}.bin": b"pickle",
        "safety_checker/model.safetensors": b"judge",
        "unet/model.onnx": b"onnx",
        "v1-5-pruned.safetensors": b"all in one",
        "README.md": b"#",
    }
    hub.repos["org/half"] = {
        name.replace("model.safetensors", "model.fp16.safetensors"): data for name, data in files.items()
    }
    hub.repos["org/pickled-image"] = {name.replace(".safetensors", ".bin"): data for name, data in files.items()}
    for name in ("org/image", "org/half"):
        done = palaver(tmp_path, hub.url, "pull", name)
        assert done.returncode == 0, done.stderr
        config = ImageConfig(model=name, data_dir=tmp_path / "data", device="cpu", dtype="float32")
        assert load_image_model(config, lambda *_: None).prediction == "epsilon"
    fetched = {
        path.partition("/resolve/")[2].partition("/")[2] for _, path in hub.asked if "/org/image/resolve" in path
    }
    assert fetched == set(files)
    shutil.rmtree(tmp_path / "data")
    assert palaver(tmp_path, hub.url, "pull", "org/image", HF_HUB_OFFLINE="1").returncode == 0
    assert "only pickled weights in" in palaver(tmp_path, hub.url, "pull", "org/pickled-image").stderr


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("org/none", 66, "There is no hub model org/none at http://127.0.0.1"),
        ("org/tiny@v9", 66, "has no revision 'v9'"),
        ("org/gated", 69, "is gated: accept its licence on the hub, then set HF_TOKEN"),
        ("org/pickled", 69, "only pickled weights"),
        ("org/data", 69, "no weights that transformers loads"),
        ("org/broken", 69, "answered with status 500"),
    ],
)
def test_the_hubs_refusals_are_one_line(hub, tmp_path, name, code, told):
    done = palaver(tmp_path, hub.url, "pull", name)
    assert told in done.stderr
    assert done.returncode == code
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_hub_that_is_not_there_is_told_with_its_address(tmp_path):
    done = palaver(tmp_path, "http://127.0.0.1:9", "pull", "org/tiny")
    assert done.returncode == 69
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
