"""From settings to one configuration for each kind and device, secrets kept until the child's standard input."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from generation.chat.config import ChatConfig
from generation.moderation.config import ModerationConfig
from workers.contract import Kind
from workers.errors import SettingsError
from workers.settings import (
    ArtifactSettings,
    ChatModelSettings,
    ImageModelSettings,
    KnowledgeSettings,
    LimitSettings,
    ModerationSettings,
    ProvenanceSettings,
    RedisSettings,
    WorkerSettings,
)
from workers.supervisor import worker_configs
from workers.worker_process import WorkerConfig

REDIS = RedisSettings(url=SecretStr("redis://localhost:1"), password=SecretStr("hush"))


def configs(
    devices: str, chat: ChatModelSettings | None = None, kinds: tuple[Kind, ...] = ("chat",)
) -> list[WorkerConfig]:
    return worker_configs(
        kinds,
        devices,
        redis_settings=REDIS,
        data_dir=Path("/data"),
        worker=WorkerSettings(),
        limits={"chat": LimitSettings(), "image": LimitSettings(user_in_flight=2)},
        chat=chat or ChatModelSettings(),
        image=ImageModelSettings(),
        knowledge=KnowledgeSettings(),
        artifacts=ArtifactSettings(store="disk"),
        moderation=ModerationSettings(secret=SecretStr("hush")),
        provenance=ProvenanceSettings(visible_label="AI"),
    )


def test_one_for_each_device() -> None:
    made = configs("cuda:0,cuda:1")
    assert [config.name for config in made] == ["chat-cuda0", "chat-cuda1"]
    assert [config.options["device"] for config in made] == ["cuda:0", "cuda:1"]


def test_the_engine_understands_its_options() -> None:
    (config,) = configs("cpu", ChatModelSettings(slots=3))
    own = {name: value for name, value in config.options.items() if name != "moderation"}
    understood = ChatConfig.from_options(own)
    assert ModerationConfig.from_options(config.options["moderation"]).secret == "hush"  # type: ignore[arg-type]
    assert understood.slots == 3
    assert understood.device == "cpu"
    assert understood.data_dir == Path("/data")


def test_each_kind_has_its_own_model_and_limits() -> None:
    chat, image = configs("cpu", kinds=("chat", "image"))
    assert (chat.kind, image.kind) == ("chat", "image")
    assert image.name == "image-cpu"
    assert (image.limits.user_in_flight, image.artifacts.store) == (2, "disk")
    assert set(image.options) == {*ImageModelSettings.model_fields, "data_dir", "moderation", "provenance"} - {
        "more_models"
    }


def test_a_remote_model_gets_one_worker_and_its_key_arrives() -> None:
    remote = ChatModelSettings(backend="openai", api_base_url="http://localhost:1", api_key=SecretStr("sesame"))
    (config,) = configs("cuda:0,cuda:1", remote)
    sent = config.to_json()
    assert json.loads(sent)["options"]["api_key"] == "sesame"
    received = WorkerConfig.model_validate_json(sent)
    assert received.redis.password is not None
    assert received.redis.password.get_secret_value() == "hush"
    assert "hush" not in repr(received.redis)


def test_no_such_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="no CUDA device"):
        configs("cuda")
