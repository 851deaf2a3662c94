"""What the Slack front-end is told: who it is, where the platform is, and how it shows answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator

from workers.errors import SettingsError

DEFAULT_API_BASE_URL = "https://slack.com/api/"


class SlackSettings(BaseModel):
    """The section ``slack``; the variables in ``bots.settings`` that carry the platform's own names fill it as well.

    Attributes:
        bot_token: ``xoxb-``; several with commas between, one for each workspace or organization.
        app_token: ``xapp-``, for Socket Mode.
        signing_secret: For HTTP mode.
        api_base_url: The Web API, for a proxy or a compatible server.
        http_host: Where HTTP mode listens.
        http_port: Likewise.
        http_path: Where requests arrive.
        streaming: Whether answers may use the platform's own streams; edits otherwise.
        stream_life_s: Longest life of a stream; then, or at a good place before, its answer goes on in another one. The
            platform ends streams at about 300 s.
        max_file_bytes: Larger attached text files are not read.
        max_picture_bytes: Larger pictures are not drawn from.
        lease_s: Answers of a front-end process that has given no sign of life for so long are taken over by another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bot_token: SecretStr | None = None
    app_token: SecretStr | None = None
    signing_secret: SecretStr | None = None
    api_base_url: str = DEFAULT_API_BASE_URL
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=3000, ge=0, le=65_535)
    http_path: str = Field(default="/slack/events", pattern=r"^/[A-Za-z0-9/_.-]*$")
    streaming: bool = True
    stream_life_s: float = Field(default=240.0, gt=0, le=290)
    max_file_bytes: int = Field(default=200_000, ge=0, le=10_000_000)
    max_picture_bytes: int = Field(default=8_000_000, ge=0, le=50_000_000)
    lease_s: float = Field(default=6.0, ge=1)

    @field_validator("api_base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        HttpUrl(value)
        return value if value.endswith("/") else value + "/"

    def check(self, http: bool) -> None:
        """Whether everything is there that a mode needs.

        Args:
            http: HTTP mode; Socket Mode otherwise.

        Raises:
            SettingsError: One line that says what is missing and where to find it.
        """
        if not self.bot_tokens:
            raise SettingsError(
                "SLACK_BOT_TOKEN is missing: install the app into your workspace and copy the token from its page, "
                "OAuth & Permissions. docs/slack.md shows each step."
            )
        if not all(token.startswith("xoxb-") for token in self.bot_tokens):
            raise SettingsError("SLACK_BOT_TOKEN is no bot token: it begins with xoxb-.")
        if http and not _text(self.signing_secret):
            raise SettingsError(
                "SLACK_SIGNING_SECRET is missing, and --http needs it: copy it from the app's page, Basic Information."
            )
        if not http and not _text(self.app_token):
            raise SettingsError(
                "SLACK_APP_TOKEN is missing: make one on the app's page, Basic Information, App-Level Tokens, with the "
                "scope connections:write; or serve HTTP with --http."
            )

    @property
    def secret(self) -> str:
        """The signing secret; empty without one."""
        return _text(self.signing_secret)

    @property
    def socket_token(self) -> str:
        """The app-level token; empty without one."""
        return _text(self.app_token)

    @property
    def bot_tokens(self) -> list[str]:
        """The tokens one by one."""
        return [token.strip() for token in _text(self.bot_token).split(",") if token.strip()]


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value().strip() if secret else ""
