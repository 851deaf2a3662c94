"""Models of the Hugging Face hub or a mirror of it.

``huggingface_hub`` does the transfer, so ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``, ``HF_HOME`` and its way
of resuming interrupted downloads hold. The files stay in its cache, shared with other tools; a record in the data
directory keeps the commit and every file's hash.
"""

from __future__ import annotations

import errno
import functools
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generation.catalog import manifest
from generation.catalog.location import ModelLocation
from generation.catalog.manifest import Manifest
from generation.catalog.progress import OnProgress, PullProgress, watched
from generation.catalog.store import require_room
from generation.errors import DiskFullError, GenerationError, ModelCorruptError, ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_TEXT = ("*.json", "*.jinja", "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "LICENSE*")
_SAFE = ("*.safetensors",)
_PICKLE = ("*.bin", "*.pt", "*.pth")
#: What says that a repository is a pipeline of diffusers, whose components lie in folders.
_PIPELINE = "model_index.json"
_LEFT_OUT = ("safety_checker", "image_encoder", "onnx", "openvino", "flax")
_VARIANT = re.compile(r"\.(fp16|bf16|non_ema|ema)\b")


def pull_hub(location: ModelLocation, on_progress: OnProgress, *, allow_pickle: bool = False) -> None:
    """Install a model of the hub.

    Args:
        location: Which model; its lock is held.
        on_progress: Told what happens.
        allow_pickle: Take pickled weights where there are no safetensors.

    Raises:
        ModelNotFoundError: No such repository or revision.
        DiskFullError: There is not enough room.
        ModelError: It cannot be had; the message says why and what to do.
    """
    try:
        record = _pulled(location, on_progress, allow_pickle=allow_pickle)
    except GenerationError:
        raise
    except ModuleNotFoundError:
        raise ModelError("Hub models need the worker's libraries: pip install palaver[worker]") from None
    except Exception as error:  # noqa: BLE001 - its transports raise each their own, and no root of them is public
        raise _mapped(error, location) from None
    location.folder.mkdir(parents=True, exist_ok=True)
    manifest.write(location.folder, record)


def _pulled(location: ModelLocation, on_progress: OnProgress, *, allow_pickle: bool) -> Manifest:
    """Download what is needed into the cache of huggingface_hub, or find it there when offline; check every hash."""
    # Imported here: it is not part of the base, and takes half a second.
    from huggingface_hub import HfApi, constants, snapshot_download

    get = functools.partial(snapshot_download, location.repo, revision=location.revision)
    if constants.HF_HUB_OFFLINE:
        snapshot = _cached(get)
        return _checked_record(location, snapshot, _recorded_hashes(location, snapshot.name), on_progress)
    info = HfApi().model_info(location.repo, revision=location.revision, files_metadata=True)
    wanted = _wanted(info, location.repo, allow_pickle=allow_pickle)
    total = sum(file.size or 0 for file in info.siblings or [] if file.rfilename in wanted)
    cache = Path(constants.HF_HUB_CACHE)
    folder = cache / f"models--{location.repo.replace('/', '--')}"
    require_room(cache, max(0, total - _cached_bytes(folder)))
    with watched(folder, f"downloading {location.repo}", total, on_progress):
        snapshot = Path(get(allow_patterns=[*wanted]))
    expected = _recorded_hashes(location, snapshot.name) | {
        file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs is not None
    }
    try:
        return _checked_record(location, snapshot, expected, on_progress)
    except ModelCorruptError:  # a cached file is broken; the library takes it for good because it is there
        with watched(folder, f"downloading {location.repo} again", total, on_progress):
            get(allow_patterns=[*wanted], force_download=True)
        return _checked_record(location, snapshot, expected, on_progress)


def _checked_record(
    location: ModelLocation, snapshot: Path, expected: dict[str, str], on_progress: OnProgress
) -> Manifest:
    """The record of a snapshot, every byte of which is read.

    Raises:
        ModelCorruptError: A file is not what the hub, or an earlier record, says it is.
    """
    total = sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_progress(PullProgress("checking the files' hashes", done, total))

    files = manifest.records(snapshot, count)
    for file in files:
        if file.sha256 != expected.get(file.path, file.sha256):
            raise ModelCorruptError(
                f"{snapshot / file.path} has the wrong SHA-256. "
                f"Run: palaver models rm {location.name}, then pull it again."
            )
    return Manifest(location.name, "hub", location.repo, snapshot.name, str(snapshot), files)


def _recorded_hashes(location: ModelLocation, commit: str) -> dict[str, str]:
    """What an earlier pull of the same commit recorded."""
    try:
        record = manifest.read(location.folder)
    except ModelCorruptError:
        return {}
    return {file.path: file.sha256 for file in record.files} if record and record.revision == commit else {}


def _cached(get: Callable[..., str]) -> Path:
    """The snapshot in the library's cache; what else the repository has on the hub does not matter."""
    snapshot = Path(get(local_files_only=True, allow_patterns=[_PIPELINE]))
    if not (snapshot / _PIPELINE).is_file():
        return Path(get(local_files_only=True, allow_patterns=[*_TEXT, *_SAFE], ignore_patterns=["*/*"]))
    return snapshot


def _wanted(info: ModelInfo, repo: str, *, allow_pickle: bool) -> set[str]:
    """Names of the files to take."""
    names = {file.rfilename for file in info.siblings or []}
    if _PIPELINE in names:
        return _pipeline_files(names, repo, allow_pickle=allow_pickle)
    patterns = [*_TEXT, *_weight_patterns(info, repo, allow_pickle=allow_pickle)]
    return {file.rfilename for file in _matching(info, patterns)}


def _pipeline_files(names: set[str], repo: str, *, allow_pickle: bool) -> set[str]:
    """Files of a pipeline: of each component its configuration, and its weights in one format and precision.

    Raises:
        ModelError: A component has only pickled weights, and those are not allowed.
    """
    wanted = {_PIPELINE}
    for folder in sorted({name.split("/")[0] for name in names if name.count("/") == 1} - set(_LEFT_OUT)):
        inside = [name for name in names if name.startswith(f"{folder}/") and name.count("/") == 1]
        texts = {name for name in inside if any(Path(name).match(pattern) for pattern in _TEXT)}
        safe = {name for name in inside if name.endswith(".safetensors") and "flax" not in name}
        pickled = {name for name in inside if any(Path(name).match(pattern) for pattern in _PICKLE)}
        if pickled and not safe and not allow_pickle:
            raise ModelError(
                f"The hub model {repo} has only pickled weights in {folder}, which can run code when they are loaded. "
                "Choose one with safetensors, or set allow_pickle if you trust its author."
            )
        weights = safe or (pickled if allow_pickle else set())
        # As they are, or in half precision where there are no others.
        wanted |= texts | ({name for name in weights if not _VARIANT.search(name)} or weights)
    return wanted


def _weight_patterns(info: ModelInfo, repo: str, *, allow_pickle: bool) -> Sequence[str]:
    """Which weights to take: safetensors, or pickles if they are allowed and nothing else is there."""
    if _matching(info, _SAFE):
        return _SAFE
    if not _matching(info, _PICKLE):
        raise ModelError(f"The hub model {repo} has no weights that transformers loads. Choose another repository.")
    if not allow_pickle:
        raise ModelError(
            f"The hub model {repo} has only pickled weights, which can run code when they are loaded. "
            "Choose one with safetensors, or set allow_pickle if you trust its author."
        )
    return _PICKLE


def _matching(info: ModelInfo, patterns: Sequence[str]) -> list[RepoSibling]:
    # Copies in other formats lie in folders: original/, onnx/, coreml/.
    files = [file for file in info.siblings or [] if "/" not in file.rfilename]
    return [file for file in files if any(Path(file.rfilename).match(pattern) for pattern in patterns)]


def _cached_bytes(folder: Path) -> int:
    blobs = folder / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir() if path.is_file()) if blobs.is_dir() else 0


def _mapped(error: Exception, location: ModelLocation) -> ModelError:
    """What went wrong, in one line that says what to do. The library's own messages carry request ids and URLs."""
    from huggingface_hub import constants, errors

    repo, revision = location.repo, location.revision
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"The hub model {repo} is gated: accept its licence on the hub, then set HF_TOKEN to a token "
            "that may read it."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(f"The hub model {repo} has no revision {revision!r}. Check the part after '@'.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"There is no hub model {repo} at {constants.ENDPOINT}, or it is private. Check the name, or set HF_TOKEN."
        )
    if constants.HF_HUB_OFFLINE or isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(
            f"The hub model {repo} is not in the cache ({constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE is set. "
            "Unset it to download, or copy the cache here."
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        return ModelError(f"{constants.ENDPOINT} answered with status {status} for {repo}. Try again later.")
    if isinstance(error, errors.HFValidationError):
        return ModelNotFoundError(f"{repo!r} is not a name the hub can have. Hub models are called org/name.")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        free = shutil.disk_usage(Path(constants.HF_HUB_CACHE).anchor).free
        return DiskFullError(
            f"The disk of {constants.HF_HUB_CACHE} became full ({free / 1e6:,.0f} MB free). Make room."
        )
    return ModelError(
        f"The hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}). Check the network and proxy, set "
        "HF_ENDPOINT to a mirror, or use the embedded default model."
    )
