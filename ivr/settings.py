"""Every setting of the service, read from the environment (``IVR_...``) or a ``.env`` file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ivr.locales import Locale
from ivr.resources import shipped, shipped_if_any
from ivr.webhooks.signature import is_secret


class Settings(BaseSettings):
    """Defaults run the service on one machine with nothing configured but the carrier's token."""

    model_config = SettingsConfigDict(
        env_prefix="IVR_",
        env_file=".env",
        env_ignore_empty=True,
        env_parse_none_str="none",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(Path("data"), description="Database, embedded Redis and keys of a one-machine installation.")
    keys_file: Path | None = Field(None, description="Keys that the operator keeps; default: keys.json in data_dir.")
    # These two may hold passwords: no repr shows them.
    database_url: str | None = Field(None, repr=False, description="SQLAlchemy URL; default: SQLite in data_dir.")
    redis_url: str | None = Field(None, repr=False, description="redis:// or redis+cluster:// URL; default: our own.")

    public_url: str | None = Field(None, description="How the carrier reaches us, e.g. https://pay.example.com.")
    trusted_proxies: int = Field(0, description="How many proxies in front may set X-Forwarded-* headers.")
    account_sid: str = Field("", description="The carrier account's SID.")
    auth_token: SecretStr = Field(SecretStr(""), description="The carrier account's token; it signs every webhook.")
    agent_number: str | None = Field(None, description="Who answers when a caller presses 0 (E.164).")
    sms_from: str | None = Field(None, description="Our number (E.164) that notices by text message come from.")
    calls_from: str | None = Field(None, description="Our number (E.164) that we call people from.")
    time_zone: str = Field("UTC", description="Of quiet hours, in which nobody is rung up; such as Europe/Berlin.")
    smtp_url: SecretStr | None = Field(None, description="Mail server for notices: smtp://user:password@host:587.")
    smtp_from: str | None = Field(None, description="The address that mail comes from.")
    locale: Locale = Field("en", description="Language of callers we know nothing of.")

    voiceprint_unused_days: int = Field(730, ge=1, description="Voiceprints unused so long are purged.")
    utterance_days: int = Field(365, ge=1, description="Fingerprints of utterances so old are purged.")

    digit_model_dir: Path = Field(default_factory=lambda: shipped("models/digits"))
    digit_model_zh_dir: Path | None = Field(
        default_factory=lambda: shipped_if_any("models/digits-zh"),
        description="Mandarin digits, experimental; with none, calls in Mandarin go by keys alone.",
    )
    voice_model_dir: Path = Field(default_factory=lambda: shipped("models/voice"))

    bank: Literal["sandbox", "http", "stripe"] = Field("sandbox", description="Which bank debits: docs/banks.md.")
    bank_url: str = Field("http://127.0.0.1:8401", description="Where the sandbox or the http bank is reached.")
    bank_api_key: SecretStr = Field(SecretStr("sandbox"), description="Our key at the sandbox or the http bank.")
    bank_test_only: bool = Field(False, description="Whether the http bank's money is play money, as the sandbox's is.")
    stripe_api_key: SecretStr = Field(SecretStr(""), description="sk_live_... or rk_live_...; play money: sk_test_...")
    stripe_webhook_secret: SecretStr = Field(SecretStr(""), description="whsec_...: Stripe signs its events with it.")
    stripe_url: str | None = Field(None, description="Where Stripe is reached, if not at Stripe: for tests.")

    bank_notice_secret: SecretStr | None = Field(
        None, description="Shared with a bank that confirms debits: signs its notices and our answers (whsec_...)."
    )

    ledger_url: str | None = Field(None, description="Our node of the consortium ledger; with none, nothing is told.")
    ledger_token: SecretStr = Field(SecretStr(""), description="The token in the member.json of our node.")

    api_requests_a_minute: int = Field(12_000, ge=6, description="How many requests an API key may make.")
    metrics_token: SecretStr | None = Field(None, description="Opens /metrics; with none, it is not served.")
    webhooks_to_private: bool = Field(False, description="Let merchant webhooks go to private addresses; for tests.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, given: str) -> str:
        if given not in available_timezones():
            raise ValueError("an IANA time zone, such as Europe/Berlin")
        return given

    @field_validator("bank_notice_secret")
    @classmethod
    def _usable(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not is_secret(given.get_secret_value()):
            raise ValueError("whsec_ and base64 of 24 to 64 random bytes")
        return given

    def sqlalchemy_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'ivr.sqlite3').resolve()}"


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()  # type: ignore[call-arg]
