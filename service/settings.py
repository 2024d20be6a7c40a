"""One frozen Settings, read from the environment and `.env` at start; every mistake is reported at once."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from service import channels as built_in
from service import setting_values as read
from service.delivery import (
    Brand,
    CaptureOrder,
    ChannelDefault,
    ContentGate,
    GroupAddresses,
    Interval,
    Mailbox,
    Pace,
    Terms,
)
from service.setting_sources import PREFIX, gather
from service.setting_values import Redirect
from service.template_files import catalogues, is_translated, language_tag, template_folders

__all__ = ["Need", "Redirect", "Settings", "SettingsError", "load_settings", "secret_names", "setting_names"]

_SECRETS = (
    *("client_secret", "signature_secrets", "webhook_secrets"),
    *("smtp_url", "database_url", "alert_url", "group_addresses"),
    *("smtp_oauth_client_secret", "smtp_oauth_refresh_token"),
    *("link_key", "receipts_email_secret"),
)
_SECRET_IN_PART = frozenset({"smtp_url", "database_url", "group_addresses"})  # their passwords; addresses go anyway
_SECRET_ENDINGS = ("SECRET", "SECRETS", "TOKEN", "KEY", "PASSWORD")  # of the names of an outside channel's settings
_NOT_GIVEN = "'', "  # among the words that a setting may be; nobody writes it
_NO_SETTINGS = frozenset({"channel_settings", "warnings"})  # fields that nobody sets by their name


class Need(Enum):
    """Which settings a command cannot do without; the others are not looked at."""

    SERVE = "all"
    STORE = "the database"
    ACCOUNT = "the database, and whose account it is"
    GROUPS = "the database, and by which days groups are billed"
    RECEIPTS = "the database, whose account it is, and where blind copies go"
    DECIDING = "what decides who delivers, and by which channels"
    RENDERING = "how messages and pages look"
    NOTHING = "none"


class SettingsError(Exception):
    """The settings will not do. Each of `mistakes` is a line with a setting's full name, and never a secret's value.

    `warnings` are lines about names that no setting has: one misspelt is often why another is missing.
    """

    def __init__(self, mistakes: tuple[str, ...], *, warnings: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
        self.warnings = warnings


def _secret(text: str, parse: Callable[[str], str] = str) -> SecretStr:
    return SecretStr(parse(text))


def _secrets(text: str) -> tuple[SecretStr, ...]:
    return tuple(SecretStr(word) for word in read.words(text))


def _unless_empty(parse: Callable[[str], Any], text: str) -> Any:
    return parse(text) if text else None


def _optional(parse: Callable[[str], Any]) -> PlainValidator:
    return PlainValidator(partial(_unless_empty, parse))


def _default(text: str, *, shown: bool = True) -> Any:
    """Return a default as one would write it in the environment; it goes the way of any other value."""
    return Field(text, repr=shown)


def _whole(*, least: int, most: int = 10**15) -> PlainValidator:
    return PlainValidator(partial(read.whole, least=least, most=most))


_Seconds = Annotated[float, PlainValidator(read.some_seconds)]
_Truth = Annotated[bool, PlainValidator(read.truth)]
_Url = Annotated[str, PlainValidator(read.base_url)]
_OptionalText = Annotated[str | None, _optional(str)]
_OptionalMailbox = Annotated[Mailbox | None, _optional(read.mailbox)]


class Settings(BaseModel):
    """What an operator decides. Lower-case names of the contract's table; defaults are the text that one would write.

    Fields are checked in this order, and a rule across fields stands with the later one: so all mistakes come together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    account_id: Annotated[str, PlainValidator(read.account_id)]
    client_id: str
    client_secret: Annotated[SecretStr, PlainValidator(_secret)]
    checkout_url: _Url = _default("https://checkout.dintero.com/v1")
    api_url: _Url = _default("https://api.dintero.com/v1")
    file_hosts: Annotated[tuple[str, ...], PlainValidator(read.file_hosts)] = _default("*.dintero.com")
    allow_unsigned: _Truth = _default("false")
    signature_secrets: Annotated[tuple[SecretStr, ...], PlainValidator(_secrets)] = _default("")
    signature_tolerance: _Seconds = _default("300")
    webhook_secrets: Annotated[tuple[SecretStr, ...], PlainValidator(_secrets)] = _default("")
    public_url: Annotated[tuple[str, ...], PlainValidator(read.base_urls)]
    invoice_channel: Annotated[ChannelDefault, PlainValidator(read.invoice_channel)] = _default("kravia")
    capture_order: CaptureOrder = CaptureOrder.AFTER_DELIVERY
    database_url: Annotated[SecretStr, PlainValidator(partial(_secret, parse=read.database_url))] = _default(
        "sqlite:///data/deliveries.db"
    )
    channels: Annotated[tuple[str, ...], PlainValidator(read.channels)] = _default("email")
    routes_file: Annotated[Path | None, _optional(read.file)] = _default("")
    fallback_after: _Seconds = _default("86400")
    smtp_url: Annotated[SecretStr | None, _optional(partial(_secret, parse=read.smtp_url))] = _default("")
    smtp_oauth_token_url: Annotated[str | None, _optional(read.base_url)] = _default("")
    smtp_oauth_client_id: _OptionalText = _default("")
    smtp_oauth_client_secret: Annotated[SecretStr | None, _optional(_secret)] = _default("")
    smtp_oauth_refresh_token: Annotated[SecretStr | None, _optional(_secret)] = _default("")
    smtp_oauth_scope: _OptionalText = _default("")
    smtp_rate: Annotated[Pace | None, _optional(read.pace)] = _default("")
    max_attachment_bytes: Annotated[int, _whole(least=1)] = _default("10485760")
    mail_from: _OptionalMailbox = _default("")
    mail_reply_to: _OptionalMailbox = _default("")
    mail_bcc: _OptionalMailbox = _default("")
    allow_real_recipients: _Truth = _default("false")
    redirect_to: Annotated[Redirect | None, _optional(read.redirect)] = _default("")
    brand_name: str
    brand_logo: Annotated[bytes | None, _optional(read.logo)] = _default("", shown=False)
    brand_logo_dark: Annotated[bytes | None, _optional(read.logo)] = _default("", shown=False)
    brand_color: Annotated[str, PlainValidator(read.color)] = _default(Brand(name="").color)
    brand_organization_number: _OptionalText = _default("")
    brand_support_email: Annotated[str | None, _optional(read.address)] = _default("")
    brand_support_phone: _OptionalText = _default("")
    brand_website: Annotated[str | None, _optional(read.website)] = _default("")
    templates_dir: Annotated[Path | None, _optional(read.folder)] = _default("")
    locale: Annotated[str, PlainValidator(read.locale)] = _default("nb")
    timezone: Annotated[ZoneInfo, PlainValidator(read.zone)] = _default("Europe/Oslo")
    group_interval: Interval = Interval.MONTHLY
    group_days_until_due: Annotated[int, _whole(least=0, most=365)] = _default("14")
    group_give_up_days: Annotated[int, _whole(least=1, most=365)] = _default("10")
    group_addresses: Annotated[GroupAddresses, PlainValidator(read.group_addresses)] = _default("", shown=False)
    group_notice: _Truth = _default("false")
    holiday_country: Annotated[str | None, _optional(read.country)] = _default("")
    concurrency: Annotated[int, _whole(least=1, most=1000)] = _default("16")
    lease_seconds: _Seconds = _default("60")
    stop_grace: _Seconds = _default("25")
    retry_delays: Annotated[tuple[float, ...], PlainValidator(read.delays)] = _default("60,300,900,1800,3600,7200")
    give_up_after: _Seconds = _default("432000")
    capture_give_up_after: _Seconds = _default("2592000")
    unconfirmed_retries: Annotated[int, _whole(least=0, most=1000)] = _default("1")
    unconfirmed_delay: _Seconds = _default("900")
    min_days_before_due: Annotated[int, _whole(least=0, most=365)] = _default("3")
    capture_delay: Annotated[float, PlainValidator(read.seconds)] = _default("0")
    cancel_notice: _Truth = _default("false")
    reconcile_every: Annotated[float, PlainValidator(read.seconds)] = _default("600")
    max_pdf_bytes: Annotated[int, _whole(least=1)] = _default("10485760")
    content_gate: ContentGate = ContentGate.WARN
    bytes_in_hand: Annotated[int, _whole(least=1)] = _default("67108864")
    link_key: Annotated[SecretStr | None, _optional(partial(_secret, parse=read.key))] = _default("")
    link_days: Annotated[int, _whole(least=1, most=3650)] = _default("60")
    link_store: Annotated[str, PlainValidator(read.link_store)] = _default("database")
    retain_personal_days: Annotated[int, _whole(least=1, most=36500)] = _default("400")
    receipts_email: Literal["", "postmark", "sendgrid", "mailgun", "ses", "generic"] = ""
    receipts_email_secret: Annotated[SecretStr | None, _optional(_secret)] = _default("")
    alert_to: Annotated[tuple[str, ...], PlainValidator(read.addresses)] = _default("")
    alert_url: Annotated[SecretStr | None, _optional(partial(_secret, parse=read.alert_url))] = _default("")
    silence_hours: Annotated[float, PlainValidator(read.hours)] = _default("20")
    admin_port: Annotated[int | None, _optional(partial(read.whole, least=1, most=65535))] = _default("")
    admin_host: Annotated[str, PlainValidator(read.host)] = _default("127.0.0.1")
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # Two that are no settings. What else is given with our prefix, by its full name and as it was written: for outside
    # channels. And what a person should know of how settings were given.
    channel_settings: Annotated[tuple[tuple[str, str], ...], PlainValidator(tuple)] = Field((), repr=False)
    warnings: tuple[str, ...] = ()

    @field_validator("allow_unsigned")
    @classmethod
    def _unsigned_is_for_tests(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic's shape
        if value and info.data.get("account_id", "T").startswith("P"):
            raise ValueError("is for a test account (T) only")
        return value

    @field_validator("signature_secrets")
    @classmethod
    def _signed(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if not value and not info.data.get("allow_unsigned", False):
            raise ValueError("is required")
        return value

    @field_validator("smtp_oauth_scope")
    @classmethod
    def _tokens_can_be_had(cls, value: str | None, info: ValidationInfo) -> str | None:
        names = ("token_url", "client_id", "client_secret", "refresh_token")
        has = {name for name in names if info.data.get(f"smtp_oauth_{name}") is not None}
        secret = info.data.get("smtp_url")
        relay = read.relay(secret.get_secret_value()) if secret is not None else None
        if relay is not None and relay.user and not relay.password and not has:
            raise ValueError(
                f"{PREFIX}SMTP_URL: has a user without a password: add it, or set {PREFIX}SMTP_OAUTH_TOKEN_URL"
            )
        if not has:
            return value
        lacking = {name: "is required" for name in ("token_url", "client_id") if name not in has}
        if not has & {"client_secret", "refresh_token"}:
            lacking["client_secret"] = f"or {PREFIX}SMTP_OAUTH_REFRESH_TOKEN is required"
        if lacking:
            given = f"{PREFIX}SMTP_OAUTH_{min(has).upper()}"
            lines = [f"{PREFIX}SMTP_OAUTH_{name.upper()}: {why} with {given}" for name, why in lacking.items()]
            raise ValueError("\n".join(lines))
        if relay is not None and (not relay.user or relay.password):
            raise ValueError(f"{PREFIX}SMTP_URL: needs a user without a password, such as smtp://user@host:587")
        return value

    @field_validator("smtp_url", "mail_from")
    @classmethod
    def _mail_has_a_way_out(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and "email" in info.data.get("channels", ()):
            raise ValueError("is required for the channel email")
        return value

    @field_validator("receipts_email_secret")
    @classmethod
    def _reports_are_proved(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and info.data.get("receipts_email"):
            raise ValueError(f"is required with {PREFIX}RECEIPTS_EMAIL")
        return value

    @field_validator("brand_logo_dark")
    @classmethod
    def _the_dark_logo_stands_for_another(cls, value: bytes | None, info: ValidationInfo) -> bytes | None:
        if value is not None and "brand_logo" in info.data and info.data["brand_logo"] is None:
            raise ValueError(f"needs {PREFIX}BRAND_LOGO beside it")
        return value

    @field_validator("alert_to")
    @classmethod
    def _alerts_have_a_way_out(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        missing = [name for name in ("smtp_url", "mail_from") if info.data.get(name, "") is None]
        if value and missing:
            raise ValueError(f"needs {' and '.join(PREFIX + name.upper() for name in missing)}")
        return value

    @field_validator("locale")
    @classmethod
    def _somebody_has_translated(cls, value: str, info: ValidationInfo) -> str:
        if "templates_dir" in info.data:  # where that is wrong, nothing is known of what it holds
            there = catalogues(template_folders(info.data["templates_dir"]))
            if not is_translated(language_tag(value), there):
                raise ValueError(f"must be a language that has a catalogue in locales/: {', '.join(sorted(there))}")
        return value

    @field_validator("redirect_to")
    @classmethod
    def _tests_reach_nobody(cls, value: Redirect | None, info: ValidationInfo) -> Redirect | None:
        account = info.data.get("account_id", "")
        real = info.data.get("allow_real_recipients", True)
        if account.startswith("P") and value is not None:
            raise ValueError("is for a test account (T) only: on a live one no customer would be reached")
        if account.startswith("T") and value is None and not real:
            raise ValueError(f"is required for a test account, unless {PREFIX}ALLOW_REAL_RECIPIENTS=true")
        if value is not None and value.email is None and "email" in info.data.get("channels", ()):
            raise ValueError("must name a mail address, for the channel email is in use")
        return value

    @field_validator("channel_settings")
    @classmethod
    def _channels_have_theirs(cls, value: tuple[tuple[str, str], ...], info: ValidationInfo) -> Any:
        """What the built-in channels miss comes together with all other mistakes."""
        if info.context is Need.SERVE:
            redirect = info.data.get("redirect_to") or Redirect()
            mistakes = built_in.mistakes_in(
                info.data.get("channels", ()),
                environ=value,
                public_url=info.data.get("public_url", ("https://localhost",))[0],
                redirect_email=redirect.email,
                redirect_phone=redirect.phone,
            )
            if mistakes:
                raise ValueError("\n".join(mistakes))
        return value

    @property
    def brand(self) -> Brand:
        """How the merchant shows itself, in one value."""
        return Brand(
            name=self.brand_name,
            color=self.brand_color,
            logo=self.brand_logo,
            logo_dark=self.brand_logo_dark,
            organization_number=self.brand_organization_number,
            support_email=self.brand_support_email,
            support_phone=self.brand_support_phone,
            website=self.brand_website,
        )

    @property
    def said_channel(self) -> ChannelDefault:
        """INVOICE_CHANNEL where it is given; without, nothing is said, and what Dintero does holds."""
        return self.invoice_channel if "invoice_channel" in self.model_fields_set else ChannelDefault()

    @property
    def group_terms(self) -> Terms:
        """What holds for a grouped purchase when nothing at the provider says."""
        return Terms(interval=self.group_interval, days_until_due=self.group_days_until_due)

    @property
    def secret_texts(self) -> tuple[str, ...]:
        """Every secret in clear, the passwords inside addresses too: for `privacy.scrub` and nothing else."""
        urls = [secret.get_secret_value() for secret in (self.smtp_url, self.database_url) if secret is not None]
        passwords = [word for url in urls if (word := _password(url))]
        values = [getattr(self, name) for name in _SECRETS if name not in _SECRET_IN_PART]
        own = [one for value in values for one in (value if isinstance(value, tuple) else (value,)) if one is not None]
        secret = {PREFIX + name for name in built_in.setting_names(secret=True)}
        others = [t for full, t in self.channel_settings if full.endswith(_SECRET_ENDINGS) or full in secret]
        lists = [text for full, text in self.channel_settings if full.endswith("SECRETS")]
        others += [word for text in lists for word in read.words(text)]
        return (*(secret.get_secret_value() for secret in own), *passwords, *map(unquote, passwords), *others)


# Harmless values for what a command has no need of, so that a wrong one does not keep it from its work.
_UNNEEDED = {
    "account_id": "T00000000",
    "client_id": "-",
    "client_secret": "-",
    "signature_secrets": "-",
    "public_url": "http://localhost",
    "channels": "unneeded:unneeded",
    "allow_real_recipients": "true",
    "brand_name": "-",
}

_NEEDED = {
    Need.STORE: {"database_url"},
    Need.ACCOUNT: {"database_url", "account_id"},
    Need.RECEIPTS: {"database_url", "account_id", "mail_bcc"},
    Need.GROUPS: {"database_url", "timezone", "holiday_country"},
    Need.DECIDING: {
        *("invoice_channel", "group_interval", "group_days_until_due", "channels"),
        *("routes_file", "timezone", "locale", "templates_dir"),
    },
    Need.RENDERING: {
        *("brand_name", "brand_logo", "brand_logo_dark", "brand_color", "brand_organization_number"),
        *("brand_support_email", "brand_support_phone", "brand_website"),
        *("templates_dir", "locale", "timezone", "mail_from", "mail_reply_to"),
    },
}
_UNNEEDED_BY_CHANNELS = {"smtp_url": "smtps://localhost", "mail_from": "nobody@merchant-delivery.no"}


def setting_names() -> tuple[str, ...]:
    """Return the full names of all settings, in the order of the contract's table."""
    return tuple(PREFIX + name.upper() for name in (*_fields(), *built_in.setting_names()))


def secret_names() -> tuple[str, ...]:
    """Return the full names of those settings that may also be given as `<name>_FILE`."""
    return tuple(PREFIX + name.upper() for name in (*_SECRETS, *built_in.setting_names(secret=True)))


def load_settings(env: Mapping[str, str] | None = None, *, need: Need) -> Settings:
    """Return the settings; raises `SettingsError` with all mistakes. With `env`, neither os.environ nor `.env` is read.

    What `need` leaves out is not read, and stands in the result at a value that is of no use.
    """
    if need is Need.NOTHING:
        return Settings.model_validate(_UNNEEDED)
    of_channels = tuple(name.lower() for name in built_in.setting_names())
    secrets = (*_SECRETS, *(name.lower() for name in built_in.setting_names(secret=True)))
    given = gather(env, names=(*_fields(), *of_channels), secrets=secrets)
    values, mistakes = dict(given.values), dict(given.mistakes)
    own = tuple((PREFIX + name.upper(), values.pop(name)) for name in of_channels if name in values)
    # An outside channel has names of its own; only what looks like a slip of ours is worth a word then.
    warnings = given.typos if ":" in values.get("channels", "") else given.warnings
    if need in _NEEDED:
        names = _NEEDED[need]
        computes = need in (Need.DECIDING, Need.RENDERING)
        unneeded = {**_UNNEEDED, **_UNNEEDED_BY_CHANNELS} if computes else _UNNEEDED
        harmless = {name: text for name, text in unneeded.items() if name not in names or need is Need.RENDERING}
        values = {**harmless, **{name: text for name, text in values.items() if name in names}}
        full_names = {".env", *(PREFIX + name.upper() + end for name in names for end in ("", "_FILE"))}
        mistakes = {full: why for full, why in mistakes.items() if full in full_names}
    settings = None
    try:
        others = (*given.others, *own) if need is Need.SERVE else ()
        given_too = {"channel_settings": others, "warnings": warnings}
        settings = Settings.model_validate({**values, **given_too}, context=need)
    except ValidationError as exc:
        for full, why in _mistakes(exc):
            if not {full, f"{full}_FILE"} & mistakes.keys():
                mistakes[full] = why
    if settings is None or mistakes:
        lines = tuple(f"{full}: {why}" for full, why in mistakes.items())
        raise SettingsError(lines, warnings=warnings)
    if need is Need.SERVE and not settings.signature_secrets:
        unsigned = f"{PREFIX}ALLOW_UNSIGNED: anybody who finds the callback address can send callbacks"
        settings = settings.model_copy(update={"warnings": (*settings.warnings, unsigned)})
    return settings


def _fields() -> tuple[str, ...]:
    return tuple(name for name in Settings.model_fields if name not in _NO_SETTINGS)


def _mistakes(exc: ValidationError) -> Iterator[tuple[str, str]]:
    for error in exc.errors(include_url=False, include_input=False):
        cause = error.get("ctx", {}).get("error")
        if error["type"] == "missing":
            why = "is required"
        elif error["type"] in {"literal_error", "enum"}:
            why = f"must be {error['ctx']['expected'].removeprefix(_NOT_GIVEN)}"
        else:
            why = str(cause) if cause is not None else error["msg"]
        yield from (_named(line, PREFIX + str(error["loc"][0]).upper()) for line in why.splitlines())


def _named(line: str, field: str) -> tuple[str, str]:
    """Return a mistake with the name that it is about: the field's, unless a rule across fields names another."""
    named, colon, why = line.partition(": ")
    return (named, why) if colon and re.fullmatch(rf"{PREFIX}[A-Z0-9_]+", named) else (field, line)


def _password(url: str) -> str | None:
    """Return the password of an address as it is written there, also where the address is not a proper one."""
    userinfo, at, _ = url.partition("://")[2].rpartition("@")
    return userinfo.partition(":")[2] if at else None
