"""The embedded moderation models: taken out of pinned packages as data, converted once, kept in the data directory.

No code of a package runs. What a package stores as a pickle is read by an unpickler that knows inert containers only.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
import shutil
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.catalog import manifest
from generation.catalog.location import ModelLocation, models_folder
from generation.catalog.manifest import Manifest
from generation.catalog.store import locked
from generation.errors import ModelCorruptError
from generation.learning.packages import Package, fetch, read_members

Progress = Callable[[str, float | None], None]

WEIGHTS_FILE = "model.safetensors"
VOCABULARY_FILE = "vocabulary.json"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """One of the embedded models.

    Args:
        name: What settings and records call it.
        package: Where its weights come from.
        convert: Makes its files in a folder, out of the package's archive.
        summary: What it is.
    """

    name: str
    package: Package
    convert: Callable[[Path, Path], None]
    summary: str

    @property
    def version(self) -> str:
        """What the record says decided."""
        return f"{self.package.version}+{self.package.sha256[:8]}"


def installed(model: EmbeddedModel, data_dir: Path, progress: Progress = lambda *_: None) -> Path:
    """A model's folder, fetched and converted at the first call on this machine.

    Args:
        model: Which one.
        data_dir: The product's data directory.
        progress: Told what is being done.

    Raises:
        ModelNotFoundError: The registry cannot be reached.
        ModelCorruptError: What came, or what is here, is not what it must be.
    """
    folder = models_folder(data_dir) / f"moderation-{model.name}"
    pin = model.package
    location = ModelLocation(model.name, "package", f"{pin.name}=={pin.version}", pin.sha256, folder, None)
    with locked(location):
        record = manifest.read(folder)
        if record is None or record.revision != pin.sha256:
            progress(f"fetching the moderation model {model.name}", None)
            _install(model, location)
        else:
            manifest.check_hashes(record)  # tens of megabytes: it is checked at each start
    return folder


def _install(model: EmbeddedModel, location: ModelLocation) -> None:
    folder = location.folder
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
        archive = fetch(model.package, Path(work) / "download")
        made = Path(work) / "made"
        made.mkdir()
        try:
            model.convert(archive, made)
        except (KeyError, ValueError, StopIteration, pickle.UnpicklingError) as error:
            raise ModelCorruptError(f"The package of the moderation model {model.name} cannot be read.") from error
        files = manifest.records(made)
        record = Manifest(model.name, "package", location.repo, location.revision, ".", files)
        manifest.write(made, record)
        made.rename(folder)


class _Inert:
    """Stands for any class of a package: keeps the state and does nothing."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


_CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "int"): int,
}


class _InertUnpickler(pickle.Unpickler):
    """Reads containers, and data of the named classes as inert objects; refuses everything else."""

    def __init__(self, data: bytes, inert: tuple[str, str]) -> None:
        super().__init__(io.BytesIO(data))
        self._inert = inert

    def find_class(self, module: str, name: str) -> Any:
        """The class that a pickle names."""
        if (module, name) == self._inert:
            return _Inert
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[(module, name)]
        raise pickle.UnpicklingError(f"{module}.{name} is not expected here")


def _state(data: bytes, module: str, name: str) -> dict[str, Any]:
    state = _InertUnpickler(data, (module, name)).load().state
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("the state is no dictionary")
    return state


def _convert_jigsaw(archive: Path, folder: Path) -> None:
    import h5py  # only the conversion needs it
    import torch
    from safetensors.torch import save_file

    members = read_members(archive, lambda name: name.startswith("toxic_classifier/model/"))
    with h5py.File(io.BytesIO(members["toxic_classifier/model/model.weights.h5"])) as file:

        def read(path: str) -> torch.Tensor:
            return torch.from_numpy(file[f"layers/{path}"][()]).contiguous()

        tensors = {"embedding.weight": read("embedding/vars/0")}
        for place, suffix in (("forward_layer", ""), ("backward_layer", "_reverse")):
            cell = f"bidirectional/{place}/cell/vars"
            tensors[f"lstm.weight_ih_l0{suffix}"] = read(f"{cell}/0").T.contiguous()
            tensors[f"lstm.weight_hh_l0{suffix}"] = read(f"{cell}/1").T.contiguous()
            tensors[f"lstm.bias_ih_l0{suffix}"] = read(f"{cell}/2")
            tensors[f"lstm.bias_hh_l0{suffix}"] = torch.zeros_like(tensors[f"lstm.bias_ih_l0{suffix}"])
        for place, name in (("dense", "hidden"), ("dense_1", "out")):
            tensors[f"{name}.weight"] = read(f"{place}/vars/0").T.contiguous()
            tensors[f"{name}.bias"] = read(f"{place}/vars/1")
    save_file(tensors, folder / WEIGHTS_FILE)
    state = _state(
        members["toxic_classifier/model/tokenizer.pickle"], "keras.src.legacy.preprocessing.text", "Tokenizer"
    )
    known = {word: index for word, index in state["word_index"].items() if index < state["num_words"]}
    vocabulary = {"filters": state["filters"], "lower": state["lower"], "words": known}
    (folder / VOCABULARY_FILE).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")


def _convert_nanoguard(archive: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    members = read_members(archive, lambda name: name.startswith("nanoguard/assets/"))
    checkpoint = torch.load(io.BytesIO(members["nanoguard/assets/model.pt"]), map_location="cpu", weights_only=True)
    tensors = {name: tensor.float().contiguous() for name, tensor in checkpoint["model_state_dict"].items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / "config.json").write_text(json.dumps(checkpoint["config"]), encoding="utf-8")
    state = _state(members["nanoguard/assets/tokenizer.pkl"], "tiktoken.core", "Encoding")
    _save_tokenizer(state, folder / TOKENIZER_FILE)


def _save_tokenizer(state: dict[str, Any], path: Path) -> None:
    """A byte-pair encoding given by ranks, as a file of the tokenizers library."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks: dict[bytes, int] = state["mergeable_ranks"]
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _halves_of(token, rank, ranks)
            merges.append((spelled(left), spelled(right)))
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    split = pre_tokenizers.Split(Regex(state["pat_str"]), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = sorted(state["special_tokens"].items(), key=lambda item: item[1])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name, _ in special])
    if any(tokenizer.token_to_id(name) != index for name, index in special):
        raise ValueError("the special tokens are not where they should be")
    tokenizer.save(str(path))


def _halves_of(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge made this one: merge by rank until two are left."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[at] + parts[at + 1], rank), at) for at in range(len(parts) - 1)]
        best, at = min(pairs)
        if best >= rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2:
        raise ValueError("the tokenizer's ranks are no byte-pair encoding")
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """A visible letter for each byte. Source: GPT-2's ``bytes_to_unicode``, as ``ByteLevel`` has it."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in visible}
    rest = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + place) for place, byte in enumerate(rest)}


#: One entry of the manifest that nsfwjs bundles as JavaScript: quantised weights, one byte each.
_JS_WEIGHT = re.compile(
    r'\{name:"(?P<name>[^"]+)",shape:\[(?P<shape>[\d,]*)\],dtype:"float32",'
    r'quantization:\{min:(?P<min>[-.\de]+),scale:(?P<scale>[-.\de]+),dtype:"uint8"\}\}'
)
_JS_BASE64 = re.compile(r'\.exports="([A-Za-z0-9+/=]+)"')


def _convert_nsfwjs(archive: Path, folder: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    base = "package/dist/models/mobilenet_v2/"
    members = {
        name.removeprefix(base): data for name, data in read_members(archive, lambda n: n.startswith(base)).items()
    }
    script = members["model.min.js"].decode("ascii")
    packed = _JS_BASE64.search(members["group1-shard1of1.min.js"].decode("ascii"))
    if packed is None:
        raise ValueError("there are no weights")
    data = np.frombuffer(base64.b64decode(packed[1]), np.uint8)
    tensors: dict[str, torch.Tensor] = {}
    at = 0
    for entry in _JS_WEIGHT.finditer(script, script.index("weightsManifest")):
        shape = [int(size) for size in entry["shape"].split(",")]
        count = int(np.prod(shape))
        values = data[at : at + count].astype(np.float32) * np.float32(entry["scale"]) + np.float32(entry["min"])
        tensors[entry["name"]] = torch.from_numpy(values.reshape(shape))
        at += count
    if at != len(data):
        raise ValueError("the weights are not as long as their manifest")
    save_file(_folded(tensors), folder / WEIGHTS_FILE)


def _folded(tensors: dict[str, Any]) -> dict[str, Any]:
    """Convolutions in torch's layout, with their batch normalisation folded in."""
    folded: dict[str, Any] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.partition("/")
        if layer.startswith("dense"):
            folded[f"{layer}.{'weight' if kind == 'kernel' else 'bias'}"] = (
                tensor.T.contiguous() if kind == "kernel" else tensor
            )
        elif kind in ("kernel", "depthwise_kernel"):
            norm = _norm_of(layer)
            # (height, width, in, out) to (out, in, height, width); depthwise is (height, width, channels, 1)
            order = (3, 2, 0, 1) if kind == "kernel" else (2, 3, 0, 1)
            scale = tensors[f"{norm}/gamma"] / (tensors[f"{norm}/moving_variance"] + _NORM_EPSILON).sqrt()
            folded[f"{layer}.weight"] = (tensor.permute(order) * scale[:, None, None, None]).contiguous()
            folded[f"{layer}.bias"] = tensors[f"{norm}/beta"] - tensors[f"{norm}/moving_mean"] * scale
    return folded


#: As in the model's own topology.
_NORM_EPSILON = 1e-3


def _norm_of(layer: str) -> str:
    return {"Conv1": "bn_Conv1", "Conv_1": "Conv_1_bn"}.get(layer, f"{layer}_BN")


JIGSAW = EmbeddedModel(
    "jigsaw-bilstm",
    Package(
        "pypi",
        "toxic-comment-classifier",
        "0.3.0",
        "e5af0f052dbb0493d585b5b486dd9b61ec13d54c0e3e2ad93c519114bb404948",
        "MIT",
    ),
    _convert_jigsaw,
    "Six kinds of toxicity in English.",
)
NANOGUARD = EmbeddedModel(
    "nanoguard",
    Package(
        "pypi",
        "metatronnanoguard",
        "0.1.0",
        "615c7a6836a2f3ec1227c7aae4136e22b5d36de0bf5bbed95b8278e0e48374e2",
        "MIT",
    ),
    _convert_nanoguard,
    "Prompt injection.",
)
NSFWJS = EmbeddedModel(
    "nsfwjs-mobilenet-v2",
    Package("npm", "nsfwjs", "4.3.0", "4496790efc9bdc6f3e85a826a8e482c1fa1e9db4b3d18c095e98cc0c73cfb12f", "MIT"),
    _convert_nsfwjs,
    "Sexual and suggestive pictures.",
)
EMBEDDED = (JIGSAW, NANOGUARD, NSFWJS)
