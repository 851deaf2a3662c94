"""The root of all settings: built once inside ``main()`` and passed down, never read at import.

Sources, the first wins: ``PALAVER_*`` in the environment (``__`` between levels, for example ``PALAVER_CHAT__MODEL``),
``REDIS_URL`` and the platforms' own variables (``ALIASES``), files with one secret each that the same variables with
``_FILE`` behind them name (``DISCORD_TOKEN_FILE``, ``PALAVER_REDIS__PASSWORD_FILE``), and ``palaver.toml`` (named by
``PALAVER_CONFIG``, else in the working directory, else in the data directory).
What nobody knows is an error that names the key: a mistyped setting never goes unnoticed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic_settings
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from bots.slack_settings import SlackSettings
from generation.data_dir import default_data_dir
from workers.contract import Kind
from workers.errors import SettingsError
from workers.settings import (
    ArtifactSettings,
    BudgetSettings,
    ChatModelSettings,
    ImageModelSettings,
    KnowledgeSettings,
    LimitSettings,
    MetricsSettings,
    ModerationSettings,
    ProvenanceSettings,
    Rate,
    RedisSettings,
    TierSettings,
    TracingSettings,
    WorkerSettings,
)

PREFIX = "PALAVER_"
#: Variables that go by the names which their platforms and hosts have given them -> the setting that they fill.
ALIASES = {
    "REDIS_URL": "redis.url",
    "DISCORD_TOKEN": "discord.token",
    "DISCORD_API_BASE_URL": "discord.api_base_url",
    "DISCORD_GATEWAY_URL": "discord.gateway_url",
    "DISCORD_CDN_BASE_URL": "discord.cdn_base_url",
    "SLACK_BOT_TOKEN": "slack.bot_token",
    "SLACK_APP_TOKEN": "slack.app_token",
    "SLACK_SIGNING_SECRET": "slack.signing_secret",
    "SLACK_API_BASE_URL": "slack.api_base_url",
}
#: Variables with our prefix that steer the reading of settings and are none themselves.
_STEERING = frozenset({"PALAVER_CONFIG"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AllLimits(_Section):
    """Rate limits by kind of request."""

    chat: LimitSettings = LimitSettings()
    image: LimitSettings = LimitSettings(
        tenant=Rate(per_minute=60, burst=30),
        channel=Rate(per_minute=30, burst=15),
        user=Rate(per_minute=10, burst=6),
        tenant_in_flight=16,
        user_in_flight=4,
    )
    answer: LimitSettings = LimitSettings()

    @property
    def by_kind(self) -> dict[Kind, LimitSettings]:
        """The same, to be looked up."""
        return {"chat": self.chat, "image": self.image, "answer": self.answer}


class ConversationSettings(_Section):
    """What is kept of a conversation and shown to the model.

    Attributes:
        persona: The system text of a conversation that has none of its own.
        disclosure: What stands below the first answer that a person gets on a chat platform: that one talks to a
            machine. Empty for nothing, which is not allowed everywhere.
        retention_s: A conversation is forgotten when nobody has written in it for this long.
        max_history_turns: Question-and-answer pairs kept; older ones are forgotten.
        history_tokens: Most tokens of history sent along, as an estimate from above: see ``bots.conversation``.
        max_answer_tokens: Longest answer that a chat platform's tenant may ask for.
    """

    persona: str = Field(default="You are a helpful assistant. Answer clearly and briefly.", max_length=20_000)
    disclosure: str = Field(
        default="I am a machine: my answers and pictures are made by models and can be wrong.", max_length=500
    )
    retention_s: int = Field(default=30 * 86_400, ge=60)
    max_history_turns: int = Field(default=50, ge=0, le=900)
    history_tokens: int = Field(default=6_000, ge=0)
    max_answer_tokens: int = Field(default=1_024, ge=16, le=1_000_000)


class DiscordSettings(_Section):
    """The Discord front-end; ``DISCORD_TOKEN`` and its like are read as well: see ``ALIASES``.

    Attributes:
        token: The bot's; without one there is no Discord front-end.
        api_base_url: Discord's REST API, of a proxy or a compatible server.
        gateway_url: Its gateway; by default what the API names.
        cdn_base_url: The only origin from which attachments are fetched.
        message_content: Whether to ask for the privileged Message Content intent: then unmentioned messages in the
            bot's threads are read as well.
        heartbeat_timeout_s: A gateway that says nothing for so long is left, and connected to anew.
        shard_id: Which shard this process is, with ``shard_count``.
        shard_count: How many processes share the guilds.
        max_attachment_bytes: Largest attachment that is fetched.
        max_text_chars: Most characters of all text attachments of a prompt.
    """

    token: SecretStr | None = None
    api_base_url: str = "https://discord.com/api/v10"
    gateway_url: str | None = None
    cdn_base_url: str = "https://cdn.discordapp.com"
    message_content: bool = False
    heartbeat_timeout_s: float = Field(default=60.0, ge=1)
    shard_id: int | None = Field(default=None, ge=0)
    shard_count: int | None = Field(default=None, ge=1)
    max_attachment_bytes: int = Field(default=8 * 2**20, ge=1)
    max_text_chars: int = Field(default=20_000, ge=1, le=150_000)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["text", "json"] = "text"
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    redis: RedisSettings = RedisSettings()
    limits: AllLimits = AllLimits()
    budgets: BudgetSettings = BudgetSettings()
    tiers: dict[str, TierSettings] = Field(default_factory=dict)
    worker: WorkerSettings = WorkerSettings()
    chat: ChatModelSettings = ChatModelSettings()
    image: ImageModelSettings = ImageModelSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    conversation: ConversationSettings = ConversationSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    discord: DiscordSettings = DiscordSettings()
    slack: SlackSettings = SlackSettings()
    moderation: ModerationSettings = ModerationSettings()
    provenance: ProvenanceSettings = ProvenanceSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats what ``load`` passes in, which is the file."""
        if isinstance(env_settings, EnvSettingsSource):  # files of secrets are read by ``load``
            files = {f"{variable}_FILE" for variable in _secret_variables()}
            own = {name: value for name, value in env_settings.env_vars.items() if name.upper() not in files}
            env_settings.env_vars = own
        return env_settings, init_settings


def load() -> Settings:
    """Read the environment and ``palaver.toml``.

    Returns:
        The settings, frozen, with ``data_dir`` absolute.

    Raises:
        SettingsError: One line that names the wrong or unknown key and, where one is close, the right one.
    """
    _check_environment()
    file = _config_file()
    values = _read(file) if file else {}
    for alias, path in ALIASES.items():
        section, _, name = path.partition(".")
        if os.environ.get(alias) and not os.environ.get(_variable(path)):
            values.setdefault(section, {})[name] = os.environ[alias]
    for path, secret in _secrets_in_files():
        _put(values, path, secret)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, file)) from None
    except pydantic_settings.SettingsError as error:
        raise SettingsError(f"The environment: {error}; write it as JSON or set its parts one by one.") from None
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


def _secrets_in_files() -> Iterator[tuple[str, str]]:
    """Secrets of files that the environment names, unless it holds the secret itself.

    Raises:
        SettingsError: A file cannot be read, or is empty.
    """
    for variable, path in _secret_variables().items():
        file = os.environ.get(f"{variable}_FILE")
        if not file or os.environ.get(variable) or os.environ.get(_variable(path)):
            continue
        try:
            secret = Path(file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{variable}_FILE names {file}, which cannot be read.") from None
        if not secret:
            raise SettingsError(f"{variable}_FILE names {file}, which is empty.")
        yield path, secret


def _secret_variables() -> dict[str, str]:
    """Variables whose value may lie in a file: those of secrets -> the setting that they fill."""
    secret = set(_secret_paths(Settings))
    own = {_variable(path): path for path in secret}
    return own | {alias: path for alias, path in ALIASES.items() if path in secret}


def _secret_paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _secret_paths(field.annotation, f"{above}{name}.")
        elif SecretStr in get_args(field.annotation) or field.annotation is SecretStr:
            yield above + name


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value


def _check_environment() -> None:
    known = {_variable(path) for path in _paths(Settings)}
    known |= {f"{variable}_FILE" for variable in _secret_variables()}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known | _STEERING:
            raise SettingsError(f"{name} is no setting{_suggest(name.upper(), known | _STEERING)}")


def _variable(path: str) -> str:
    return PREFIX + path.replace(".", "__").upper()


def _config_file() -> Path | None:
    named = os.environ.get("PALAVER_CONFIG")
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"PALAVER_CONFIG names {named}, and there is no such file.")
        return Path(named)
    data_dir = Path(os.environ.get("PALAVER_DATA_DIR") or default_data_dir()).expanduser()
    return next((file for file in (Path("palaver.toml"), data_dir / "palaver.toml") if file.is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from None
    known = set(_paths(Settings))
    for path in _written(values):
        # What tiers are called is the operator's own affair; what is in them is checked with their values.
        if path not in known and not path.startswith("tiers."):
            raise SettingsError(f"{file}: {path} is no setting{_suggest(path, known)}")
    return values


def _paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every section and key below a model, as dotted paths."""
    for name, field in model.model_fields.items():
        yield above + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{above}{name}.")


def _written(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield above + name
        if isinstance(value, dict):
            yield from _written(value, f"{above}{name}.")


def _suggest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "."


def _explain(error: ValidationError, file: Path | None) -> str:
    """The first fault without its value, which may be a secret, and where it was set."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = ".".join(map(str, fault["loc"]))
    variable = _variable(path)
    in_environment = any(variable.startswith(name.upper()) for name in os.environ if name.upper().startswith(PREFIX))
    alias = next((name for name, filled in ALIASES.items() if filled == path and os.environ.get(name)), None)
    where = variable if in_environment else alias or (f"{file}: {path}" if file else path)
    return f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}."
