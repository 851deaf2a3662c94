from __future__ import annotations

import os

import pytest

from bots import settings
from workers.errors import SettingsError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.upper().startswith("PALAVER_") or name == "REDIS_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing(tmp_path):
    loaded = settings.load()
    assert loaded.data_dir == tmp_path / "data"
    assert loaded.redis.url is None
    assert loaded.limits.chat.user.burst == 10


def test_the_environment_beats_the_file(monkeypatch, tmp_path):
    (tmp_path / "palaver.toml").write_text('[chat]\nmodel = "file"\ndevice = "cpu"\n')
    monkeypatch.setenv("PALAVER_CHAT__MODEL", "environment")
    loaded = settings.load()
    assert (loaded.chat.model, loaded.chat.device) == ("environment", "cpu")


def test_one_part_of_a_limit_can_be_set_alone(monkeypatch, tmp_path):
    (tmp_path / "palaver.toml").write_text("[limits.chat.tenant]\nper_minute = 7\n")
    monkeypatch.setenv("PALAVER_LIMITS__CHAT__USER__BURST", "3")
    limits = settings.load().limits.chat
    assert (limits.user.burst, limits.user.per_minute) == (3, 20)
    assert (limits.tenant.burst, limits.tenant.per_minute) == (60, 7)


def test_files_are_found_in_order(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "palaver.toml").write_text('log_level = "info"\n')
    assert settings.load().log_level == "info"
    (tmp_path / "palaver.toml").write_text('log_level = "error"\n')
    assert settings.load().log_level == "error"
    (tmp_path / "other.toml").write_text('log_level = "debug"\n')
    monkeypatch.setenv("PALAVER_CONFIG", "other.toml")
    assert settings.load().log_level == "debug"
    monkeypatch.setenv("PALAVER_CONFIG", "absent.toml")
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        settings.load()


def test_redis_url_is_understood_and_our_own_variable_beats_it(monkeypatch, tmp_path):
    (tmp_path / "palaver.toml").write_text('[redis]\nurl = "redis://file"\n')
    monkeypatch.setenv("REDIS_URL", "redis://common")
    assert settings.load().redis.url.get_secret_value() == "redis://common"
    monkeypatch.setenv("PALAVER_REDIS__URL", "redis://ours")
    assert settings.load().redis.url.get_secret_value() == "redis://ours"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PALAVER_CHAT__MODLE", "PALAVER_CHAT__MODEL"),
        ("PALAVER_LIMITS__CHAT__USERS__BURST", "PALAVER_LIMITS__CHAT__USER__BURST"),
        ("PALAVER_LOGLEVEL", "PALAVER_LOG_LEVEL"),
        ("palaver_chat__modle", "PALAVER_CHAT__MODEL"),
    ],
)
def test_an_unknown_variable_is_named_with_the_closest(monkeypatch, name, meant):
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert name in str(caught.value)
    assert f"did you mean {meant}?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named", "meant"),
    [
        ('[chat]\nmodle = "x"\n', "chat.modle", "chat.model"),
        ("[chatt]\nslots = 1\n", "chatt", "chat"),
        ("[limits.chat.user]\nburts = 1\n", "limits.chat.user.burts", "limits.chat.user.burst"),
    ],
)
def test_an_unknown_key_in_the_file_is_named_with_the_closest(tmp_path, text, named, meant):
    (tmp_path / "palaver.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "palaver.toml" in str(caught.value)
    assert f"{named} is no setting; did you mean {meant}?" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PALAVER_CHAT__SLOTS", "-4"),
        ("PALAVER_CHAT__DTYPE", "float8"),
        ("PALAVER_LIMITS__CHAT__USER__BURST", "many"),
        ("PALAVER_LIMITS", "{broken"),
        ("PALAVER_WORKER__LEASE_S", "0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_place_but_not_the_value(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    message = str(caught.value)
    assert "\n" not in message
    assert name in message or name.removeprefix("PALAVER_").lower() in message
    assert value not in message


def test_a_wrong_value_in_the_file_names_the_file(tmp_path):
    (tmp_path / "palaver.toml").write_text("[chat]\nslots = -1\n")
    with pytest.raises(SettingsError, match=r"palaver\.toml: chat\.slots: input should be"):
        settings.load()


def test_a_file_that_is_no_toml_is_said_to_be_so(tmp_path):
    (tmp_path / "palaver.toml").write_text("chat = = 3\n")
    with pytest.raises(SettingsError, match=r"palaver\.toml cannot be read"):
        settings.load()


def test_secrets_do_not_show(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://:opensesame@host")
    monkeypatch.setenv("PALAVER_CHAT__API_KEY", "opensesame")
    loaded = settings.load()
    assert "opensesame" not in repr(loaded) + str(loaded) + loaded.model_dump_json()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        settings.load().log_level = "debug"


def test_secrets_may_lie_in_files(monkeypatch, tmp_path):
    for name, text in (("password", "from a file\n"), ("token", " t0ken "), ("empty", "\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PALAVER_REDIS__PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("DISCORD_TOKEN_FILE", str(tmp_path / "token"))
    loaded = settings.load()
    assert loaded.redis.password is not None
    assert loaded.redis.password.get_secret_value() == "from a file"
    assert loaded.discord.token is not None
    assert loaded.discord.token.get_secret_value() == "t0ken"
    monkeypatch.setenv("DISCORD_TOKEN", "from the environment")
    assert settings.load().discord.token != loaded.discord.token
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "empty"))
    with pytest.raises(SettingsError, match=r"SLACK_BOT_TOKEN_FILE.*empty"):
        settings.load()
    monkeypatch.setenv("PALAVER_LOG_LEVEL_FILE", "x")
    with pytest.raises(SettingsError, match="PALAVER_LOG_LEVEL_FILE is no setting"):
        settings.load()
