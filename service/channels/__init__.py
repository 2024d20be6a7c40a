"""The ways to reach a customer; here only the table of those that come with the service, and of their settings."""

from collections.abc import Iterable
from importlib import import_module

BUILT_IN: dict[str, str] = {
    "email": "service.channels.email:open_email",
    "http": "service.channels.http:open_http",
    "sms-twilio": "service.channels.sms_twilio:open_sms_twilio",
    "sms-sinch": "service.channels.sms_sinch:open_sms_sinch",
    "sms-link": "service.channels.sms_link:open_sms_link",
    "sms-46elks": "service.channels.sms_46elks:open_sms_46elks",
    "sms-gatewayapi": "service.channels.sms_gatewayapi:open_sms_gatewayapi",
}
"""A channel's name in `CHANNELS`, and the factory behind it, imported only when it is opened."""

SETTINGS: dict[str, tuple[tuple[str, bool, str], ...]] = {
    "http": (
        ("HTTP_URL", True, "where the channel http posts invoices"),
        ("HTTP_SECRETS", True, "what it signs with, comma-separated"),
        ("HTTP_DOCUMENT", False, "base64 or link"),
        ("HTTP_ALLOW_PRIVATE", False, "true: it may be a private address, and http"),
    ),
    "sms": (  # shared by those that follow
        ("SMS_FROM", False, "who a text is from: a name, a number or a short number"),
        ("RECEIPT_SECRET", True, "proves delivery reports of providers that do not sign them"),
    ),
    "sms-twilio": (
        ("TWILIO_ACCOUNT_SID", False, "the account: AC and 32 hex digits"),
        ("TWILIO_AUTH_TOKEN", True, "its token, which also signs reports"),
        ("TWILIO_MESSAGING_SERVICE_SID", False, "who a text is from, instead of SMS_FROM"),
        ("TWILIO_URL", False, "where the API is"),
    ),
    "sms-sinch": (
        ("SINCH_REGION", False, "eu or another of Sinch's regions"),
        ("SINCH_SERVICE_PLAN_ID", False, "the service plan"),
        ("SINCH_API_TOKEN", True, "its token"),
        ("SINCH_WEBHOOK_SECRET", True, "what signs reports"),
        ("SINCH_URL", False, "where the API is"),
    ),
    "sms-link": (
        ("LINKMOBILITY_URL", False, "the address that was assigned"),
        ("LINKMOBILITY_USER", False, "the user"),
        ("LINKMOBILITY_PASSWORD", True, "the password"),
        ("LINKMOBILITY_PLATFORM_ID", False, "the platform's id"),
        ("LINKMOBILITY_PARTNER_ID", False, "the partner's id on it"),
        ("LINKMOBILITY_GATE", False, "the gate that reports come through"),
    ),
    "sms-46elks": (
        ("46ELKS_USER", False, "the API user"),
        ("46ELKS_PASSWORD", True, "the API password"),
        ("46ELKS_URL", False, "where the API is"),
    ),
    "sms-gatewayapi": (
        ("GATEWAYAPI_TOKEN", True, "the API token"),
        ("GATEWAYAPI_WEBHOOK_SECRET", True, "what signs reports"),
        ("GATEWAYAPI_URL", False, "where the API is"),
    ),
}
"""Of a built-in channel the settings of its own: name without DELIVERY_, whether it is a secret, what it is.

They reach the channel in `ChannelContext.environ`, with their full names; a secret may be given as `X_FILE`.
"""


def setting_names(*, secret: bool = False) -> tuple[str, ...]:
    """Return the names of all channels' own settings, or only of those that are secrets."""
    return tuple(name for rows in SETTINGS.values() for name, is_secret, _ in rows if is_secret or not secret)


class UnusableSettings(ValueError):
    """A channel's own settings will not do. Each of `mistakes` is a line with a full name, and never a value."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def mistakes_in(
    names: Iterable[str],
    *,
    environ: tuple[tuple[str, str], ...],
    public_url: str,
    redirect_email: str | None,
    redirect_phone: str | None,
) -> tuple[str, ...]:
    """Return all that these channels find wrong with settings of their own; nothing is opened, and email has none."""
    from service.clock import SystemClock  # noqa: PLC0415
    from service.delivery import ChannelContext  # noqa: PLC0415

    context = ChannelContext(
        account_id="",
        clock=SystemClock(),
        environ=environ,
        redirect_email=redirect_email,
        redirect_phone=redirect_phone,
        public_url=public_url,
    )
    found: list[str] = []
    for name in names:
        if name not in BUILT_IN or name == "email":
            continue
        module, _, factory = BUILT_IN[name].partition(":")
        try:
            getattr(import_module(module), factory)(context)  # which reads them before it opens anything
        except UnusableSettings as exc:
            found += exc.mistakes
    return tuple(dict.fromkeys(found))
