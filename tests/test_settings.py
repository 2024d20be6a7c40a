"""Settings: what is taken, what is refused, and that every mistake is named at once and no secret ever."""

import importlib
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.addresses import usable_address
from service.delivery import CaptureOrder, ChannelDefault, Interval, Mailbox, Terms
from service.dintero.callback import signed_host
from service.setting_values import key_bytes
from service.settings import Need, Redirect, Settings, SettingsError, load_settings, secret_names, setting_names
from tests.pictures import chunk, png

PNG = png(88, 24)
GOOD = {
    "ACCOUNT_ID": "T12345678",
    "CLIENT_ID": "client",
    "CLIENT_SECRET": "client-secret-1",
    "SIGNATURE_SECRETS": "signature-secret-1,signature-secret-2",
    "PUBLIC_URL": "https://shop.example/delivery/",
    "SMTP_URL": "smtp://user:smtp-pass%C3%B8rd@mail.example:587",
    "MAIL_FROM": "Butikken AS <post@butikken.example>",
    "REDIRECT_TO": "test@butikken.example",
    "BRAND_NAME": "Butikken AS",
}


def env(**changes: str | None) -> dict[str, str]:
    merged = {**GOOD, **changes}
    return {f"DELIVERY_{name}": text for name, text in merged.items() if text is not None}


def loaded(**changes: str | None) -> Settings:
    return load_settings(env(**changes), need=Need.SERVE)


def mistakes(**changes: str | None) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        loaded(**changes)
    return dict(line.split(": ", 1) for line in caught.value.mistakes)


def test_defaults_are_those_of_the_contract() -> None:
    settings = loaded()
    assert (settings.checkout_url, settings.api_url) == (
        "https://checkout.dintero.com/v1",
        "https://api.dintero.com/v1",
    )
    assert settings.file_hosts == ("*.dintero.com",)
    assert (settings.signature_tolerance, settings.webhook_secrets) == (300, ())
    assert settings.invoice_channel == ChannelDefault(default="kravia")
    assert settings.capture_order is CaptureOrder.AFTER_DELIVERY
    assert settings.database_url.get_secret_value() == "sqlite:///data/deliveries.db"
    assert settings.channels == ("email",)
    assert (settings.locale, settings.timezone) == ("nb", ZoneInfo("Europe/Oslo"))
    assert (settings.concurrency, settings.lease_seconds, settings.stop_grace) == (16, 60, 25)
    assert [*settings.retry_delays] == [60, 300, 900, 1800, 3600, 7200]
    assert (settings.give_up_after, settings.capture_give_up_after) == (432000, 2592000)
    assert (settings.unconfirmed_retries, settings.unconfirmed_delay, settings.reconcile_every) == (1, 900, 600)
    assert (settings.max_pdf_bytes, settings.admin_port, settings.admin_host) == (10485760, None, "127.0.0.1")
    assert (settings.log_format, settings.log_level, settings.templates_dir) == ("json", "info", None)
    assert (settings.mail_reply_to, settings.mail_bcc, settings.warnings) == (None, None, ())
    assert (settings.allow_unsigned, settings.allow_real_recipients) == (False, False)


def test_what_is_given_becomes_values(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG)
    settings = loaded(
        PUBLIC_URL="https://Shop.example/delivery/, https://other.example",
        FILE_HOSTS="*.Dintero.com, 127.0.0.1,[::1],files.example",
        INVOICE_CHANNEL="kravia.invoice_b2b=merchant, kravia.invoice_b2c=kravia",
        CAPTURE_ORDER="before_delivery",
        CHANNELS="my_shop.paper:open_paper, email",
        RETRY_DELAYS="0.5, 2",
        RECONCILE_EVERY="0",
        REDIRECT_TO="+47 999 99 999, Test@Butikken.example",
        MAIL_REPLY_TO='"Butikken, ""avd"" \\"Øst\\"" <kunde@butikken.example>',
        MAIL_BCC="kopi@bærum.example",
        BRAND_LOGO=str(tmp_path / "logo.png"),
        BRAND_COLOR="#A0B1C2",
        BRAND_WEBSITE="https://butikken.example",
        BRAND_SUPPORT_EMAIL="hjelp@butikken.example",
        BRAND_ORGANIZATION_NUMBER="999 999 999",
        TEMPLATES_DIR=str(tmp_path),
        LOCALE="en-GB",
        ADMIN_PORT="9090",
    )
    assert settings.public_url == ("https://shop.example/delivery", "https://other.example")
    assert settings.file_hosts == ("*.dintero.com", "127.0.0.1", "::1", "files.example")
    assert settings.invoice_channel == ChannelDefault(
        by_product=(("kravia.invoice_b2b", "merchant"), ("kravia.invoice_b2c", "kravia"))
    )
    assert settings.capture_order is CaptureOrder.BEFORE_DELIVERY
    assert settings.channels == ("my_shop.paper:open_paper", "email")
    assert (settings.retry_delays, settings.reconcile_every) == ((0.5, 2), 0)
    assert settings.redirect_to == Redirect(email="Test@butikken.example", phone="+4799999999")
    assert settings.mail_from == Mailbox(name="Butikken AS", address="post@butikken.example")
    assert settings.mail_reply_to is not None
    assert settings.mail_reply_to.name == 'Butikken, ""avd"" "Øst"'
    assert settings.mail_bcc == Mailbox(name="", address="kopi@xn--brum-voa.example")
    assert (settings.brand.logo, settings.brand.color) == (PNG, "#a0b1c2")
    assert (settings.brand.name, settings.brand.organization_number) == ("Butikken AS", "999 999 999")
    assert (settings.templates_dir, settings.admin_port, settings.locale) == (tmp_path, 9090, "en-GB")


def test_everything_that_is_required_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, need=Need.SERVE)
    assert [line.split(":")[0] for line in caught.value.mistakes] == [
        f"DELIVERY_{name}"
        for name in (
            "ACCOUNT_ID",
            "CLIENT_ID",
            "CLIENT_SECRET",
            "SIGNATURE_SECRETS",
            "PUBLIC_URL",
            "SMTP_URL",
            "MAIL_FROM",
            "BRAND_NAME",
        )
    ]


def test_wrong_missing_and_contradictory_settings_come_together(tmp_path: Path) -> None:
    found = mistakes(
        ADMIN_PORT="ninety",
        CLIENT_SECRET=None,
        SMTP_URL=None,
        REDIRECT_TO=None,
        ALLOW_UNSIGNED="perhaps",
        SIGNATURE_SECRETS_FILE=str(tmp_path / "missing"),
        WEBHOOK_SECRETS_FILE=str(tmp_path / "missing"),
    )
    assert set(found) == {
        f"DELIVERY_{name}"
        for name in (
            "ADMIN_PORT",
            "CLIENT_SECRET",
            "SMTP_URL",
            "REDIRECT_TO",
            "ALLOW_UNSIGNED",
            "SIGNATURE_SECRETS",
            "SIGNATURE_SECRETS_FILE",
            "WEBHOOK_SECRETS_FILE",
        )
    }
    assert found["DELIVERY_CLIENT_SECRET"] == "is required"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCOUNT_ID", "X12345678"),
        ("ACCOUNT_ID", "T1234567"),
        ("ACCOUNT_ID", "T1234567٣"),
        ("CHECKOUT_URL", "http://checkout.dintero.com/v1"),
        ("CHECKOUT_URL", "https://checkout.dintero.com/v1?a=b"),
        ("API_URL", "https://user:pass@api.dintero.com"),
        ("API_URL", "ftp://api.dintero.com"),
        ("API_URL", "https://host:99999"),
        ("API_URL", "https://[::1"),
        ("API_URL", "http://127.0.0.1.evil.example"),
        ("PUBLIC_URL", "shop.example"),
        ("PUBLIC_URL", "https://shop.example, http://shop.example"),
        ("PUBLIC_URL", "https://shop.example/#"),
        ("PUBLIC_URL", ","),
        ("PUBLIC_URL", "https://.../"),
        ("PUBLIC_URL", "https://xn--/"),
        ("PUBLIC_URL", "https://xn--a.example"),
        ("PUBLIC_URL", "https://-.example"),
        ("PUBLIC_URL", "https://shop..example"),
        ("PUBLIC_URL", "https://sho%70.example"),
        ("PUBLIC_URL", "https://256.1.1.1"),
        ("PUBLIC_URL", f"https://{'a' * 64}.example"),
        ("PUBLIC_URL", "https://shop.example:0"),
        ("PUBLIC_URL", "https://blå_bær.example"),
        ("PUBLIC_URL", "https://shop.example/blåbær"),
        ("FILE_HOSTS", "*"),
        ("FILE_HOSTS", "https://files.example"),
        ("FILE_HOSTS", "files.example:443"),
        ("FILE_HOSTS", "fi*les.example"),
        ("FILE_HOSTS", f"*.{'a.' * 127}example"),
        ("SIGNATURE_SECRETS", " , "),
        ("SIGNATURE_TOLERANCE", "0"),
        ("SIGNATURE_TOLERANCE", "-1"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "inf"),
        ("STOP_GRACE", "soon"),
        ("RECONCILE_EVERY", "-0.1"),
        ("RETRY_DELAYS", "60,0"),
        ("RETRY_DELAYS", "60,,300"),
        ("RETRY_DELAYS", ","),
        ("INVOICE_CHANNEL", "Dintero"),
        ("INVOICE_CHANNEL", "kravia.invoice_b2b=shop"),
        ("INVOICE_CHANNEL", "kravia.invoice_b2=merchant"),
        ("INVOICE_CHANNEL", "kravia.invoice_b2b=merchant,kravia.invoice_b2b=kravia"),
        ("INVOICE_CHANNEL", "merchant,kravia.invoice_b2b=kravia"),
        ("CAPTURE_ORDER", "during_delivery"),
        ("DATABASE_URL", "mysql://host/name"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "postgresql://user:pw@host:port/name"),
        ("DATABASE_URL", "postgresql://user:pw@host"),
        ("CHANNELS", "pigeon"),
        ("CHANNELS", ","),
        ("SMTP_URL", "http://mail.example"),
        ("SMTP_URL", "smtp+insecure://mail.example:25"),
        ("MAIL_FROM", "Butikken AS"),
        ("MAIL_FROM", "Butikken <a@b@c>"),
        ("MAIL_BCC", "a@butikken.example, b@butikken.example"),
        ("MAIL_REPLY_TO", "Butikken <post@butikken.example"),
        ("REDIRECT_TO", "a@butikken.example,b@butikken.example"),
        ("REDIRECT_TO", "a@butikken.example,99999999"),
        ("REDIRECT_TO", "+4799999999"),
        ("REDIRECT_TO", "test@butikken.local"),
        ("MAIL_FROM", "kåre@butikken.example"),
        ("MAIL_FROM", '"odd, local"@butikken.example'),
        ("BRAND_COLOR", "blue"),
        ("BRAND_LOGO", "/nowhere/logo.png"),
        ("BRAND_WEBSITE", "butikken.example"),
        ("BRAND_WEBSITE", "javascript:alert(1)"),
        ("BRAND_WEBSITE", "https://.../"),
        ("BRAND_SUPPORT_EMAIL", "butikken"),
        ("BRAND_NAME", "Butikken\nAS"),
        ("BRAND_NAME", "Butikken \udcff"),
        ("TEMPLATES_DIR", "/nowhere"),
        ("LOCALE", "norsk"),
        ("LOCALE", "fr"),
        ("LOCALE", "../nb"),
        ("TIMEZONE", "Oslo"),
        ("TIMEZONE", "Europe"),
        ("TIMEZONE", "../etc/passwd"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "1001"),
        ("CONCURRENCY", "1.5"),
        ("UNCONFIRMED_RETRIES", "-1"),
        ("MAX_PDF_BYTES", "0"),
        ("ADMIN_PORT", "65536"),
        ("ADMIN_HOST", "http://localhost"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "INFO"),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, text: str) -> None:
    assert set(mistakes(**{name: text})) == {f"DELIVERY_{name}"}


@given(st.sampled_from(setting_names()), st.text(st.characters(blacklist_characters="\x00"), max_size=40))
def test_no_text_is_too_odd_for_a_mistake_with_a_name(full: str, text: str) -> None:
    lines: tuple[str, ...] = ("DELIVERY_",)
    try:
        load_settings({**env(), full: text}, need=Need.SERVE)
    except SettingsError as exc:
        lines = exc.mistakes
    assert lines
    assert all(line.startswith("DELIVERY_") and "\n" not in line for line in lines)


@pytest.mark.parametrize("name", ["client_secret", "signature_secrets", "webhook_secrets", "smtp_url", "database_url"])
def test_a_secret_may_stand_in_a_file(tmp_path: Path, name: str) -> None:
    full = name.upper()
    text = {"smtp_url": GOOD["SMTP_URL"], "database_url": "postgresql://u:p@h/n"}.get(name, "from a file")
    (tmp_path / "secret").write_text(text + "\n")
    settings = loaded(**{full: None, f"{full}_FILE": str(tmp_path / "secret")})
    value = getattr(settings, name)
    assert (value[0] if isinstance(value, tuple) else value).get_secret_value() == text
    assert f"DELIVERY_{full}" in secret_names()


def test_a_secret_keeps_all_but_one_line_break_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b" s$p{a}ce d \r\n")
    settings = loaded(CLIENT_SECRET=None, CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert settings.client_secret.get_secret_value() == " s$p{a}ce d "


def test_both_a_value_and_a_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other")
    found = mistakes(CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert set(found) == {"DELIVERY_CLIENT_SECRET"}
    assert "DELIVERY_CLIENT_SECRET_FILE" in found["DELIVERY_CLIENT_SECRET"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"two\nlines\n"])
def test_a_file_that_will_not_do_is_a_mistake(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    found = mistakes(CLIENT_SECRET=None, CLIENT_SECRET_FILE=str(tmp_path / "secret"))
    assert set(found) == {"DELIVERY_CLIENT_SECRET_FILE"}


def test_an_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert loaded(CONCURRENCY="", ADMIN_PORT="  ", CLIENT_SECRET_FILE="").concurrency == 16
    found = mistakes(CLIENT_SECRET="", SIGNATURE_SECRETS=None, SIGNATURE_SECRETS_FILE=str(tmp_path / "empty"))
    assert found == {"DELIVERY_CLIENT_SECRET": "is required", "DELIVERY_SIGNATURE_SECRETS": "is required"}


def test_the_environment_wins_over_the_file_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{name}='{text}'" for name, text in env(CONCURRENCY="3", STOP_GRACE="7").items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "PATH_TO_OTHERS=1", "DELIVERY_LOCALE=${HOME}"]))
    monkeypatch.chdir(tmp_path)
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DELIVERY_CONCURRENCY", "4")
    monkeypatch.setenv("DELIVERY_STOP_GRACE", "")
    monkeypatch.setenv("DELIVERY_LOCALE", "en")
    settings = load_settings(need=Need.SERVE)
    assert (settings.concurrency, settings.stop_grace, settings.locale) == (4, 7, "en")
    assert settings.warnings == ()


def test_a_mapping_keeps_environment_and_file_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DELIVERY_CONCURRENCY=3\nDELIVERY_ODD=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIVERY_STOP_GRACE", "7")
    settings = loaded()
    assert (settings.concurrency, settings.stop_grace, settings.warnings) == (16, 25, ())


def test_an_unreadable_file_in_the_folder_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"DELIVERY_LOCALE=\xff\n")
    monkeypatch.chdir(tmp_path)
    for need in (Need.SERVE, Need.STORE):
        with pytest.raises(SettingsError) as caught:
            load_settings(need=need)
        assert any(line.startswith(".env: ") for line in caught.value.mistakes)


def test_unknown_names_are_warned_about_with_what_was_meant() -> None:
    settings = load_settings({**env(), "DELIVERY_SMTP_ULR": "s3cret", "DELIVERY_X": "1"}, need=Need.SERVE)
    assert len(settings.warnings) == 2
    assert "DELIVERY_SMTP_ULR" in settings.warnings[0]
    assert "DELIVERY_SMTP_URL" in settings.warnings[0]
    assert "meant" not in settings.warnings[1]
    assert "s3cret" not in str(settings.warnings)
    with pytest.raises(SettingsError) as caught:
        load_settings({"DELIVERY_SMTP_ULR": "s3cret"}, need=Need.SERVE)
    assert any("DELIVERY_SMTP_URL" in warning for warning in caught.value.warnings)


def test_an_outside_channel_is_given_what_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{name}='{text}'" for name, text in env(CHANNELS="acme.post:open_post,email").items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "DELIVERY_POST_KEY='q7 $key'", "DELIVERY_POST_URL=a", "OTHER=1"]))
    monkeypatch.chdir(tmp_path)
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DELIVERY_POST_URL", "b")
    monkeypatch.setenv("DELIVERY_POST_EMPTY", "")
    settings = load_settings(need=Need.SERVE)
    assert settings.channel_settings == (("DELIVERY_POST_KEY", "q7 $key"), ("DELIVERY_POST_URL", "b"))
    assert "q7" not in repr(settings)
    assert "q7" not in str(settings)
    assert "q7 $key" in settings.secret_texts
    assert "b" not in settings.secret_texts
    assert settings.warnings == ()


@pytest.mark.parametrize("name", ["CAPTUR_ORDER", "SMTP_ULR", "LOCAL", "CLIENT_SECERT_FILE", "BRAND_COLOUR"])
def test_a_slip_is_warned_about_beside_an_outside_channel(name: str) -> None:
    given = {name: "s3cret", "SMS_URL": "b", "POST_URL_FILE": "c", "SMS_FROM": "d"}
    (warning,) = loaded(CHANNELS="acme.post:open_post,email", **given).warnings
    assert warning.startswith(f"DELIVERY_{name}: ")
    assert "is it DELIVERY_" in warning
    assert "s3cret" not in warning


@pytest.mark.parametrize("name", ["POST_SECRET", "POST_TOKEN", "POST_KEY", "POST_PASSWORD"])
def test_an_outside_channels_secrets_are_known(name: str) -> None:
    assert "q7" in loaded(**{name: "q7"}).secret_texts
    assert loaded(**{name: "\udcff\n"}).channel_settings == ((f"DELIVERY_{name}", "\udcff\n"),), "as it was given"


@pytest.mark.parametrize("name", ["CHANNEL_SETTINGS", "WARNINGS"])
def test_what_stands_beside_the_settings_cannot_be_set(name: str) -> None:
    assert len(loaded(**{name: "x"}).warnings) == 1


def test_a_language_needs_a_catalogue(tmp_path: Path) -> None:
    for given_locale in ("nb", "nn", "no", "nb_NO", "EN", "en-GB"):
        assert loaded(LOCALE=given_locale).locale == given_locale
    assert mistakes(LOCALE="is") == {
        "DELIVERY_LOCALE": "must be a language that has a catalogue in locales/: da, en, fi, nb, nn, sv",
    }
    (tmp_path / "locales").mkdir()
    (tmp_path / "locales" / "is.po").touch()
    assert loaded(LOCALE="is", TEMPLATES_DIR=str(tmp_path)).locale == "is"
    assert set(mistakes(LOCALE="is", TEMPLATES_DIR="/nowhere")) == {"DELIVERY_TEMPLATES_DIR"}


def test_wrong_pictures_and_languages_come_with_the_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG[:8])
    found = mistakes(LOCALE="fr", BRAND_LOGO=str(tmp_path / "logo.png"), PUBLIC_URL="https://.../", CLIENT_ID=None)
    assert set(found) == {f"DELIVERY_{name}" for name in ("LOCALE", "BRAND_LOGO", "PUBLIC_URL", "CLIENT_ID")}
    assert "cut short" in found["DELIVERY_BRAND_LOGO"]


def test_what_channels_miss_comes_with_the_other_mistakes_and_no_secret_with_it() -> None:
    given = {
        "CHANNELS": "email,http,sms-twilio",
        "SMTP_RATE": "fast",
        "FALLBACK_AFTER": "0",
        "CONTENT_GATE": "s3cret-maybe",
        "LINK_KEY": "s3cret-short",
        "RECEIPTS_EMAIL": "pigeon",
        "HTTP_URL": "http://erp.example/s3cret",
        "HTTP_DOCUMENT": "s3cret-paper",
        "SMS_FROM": "INFO",
        "TWILIO_ACCOUNT_SID": "s3cret-sid",
    }
    found = mistakes(**given)
    right = {"CHANNELS"}
    missing = {"HTTP_SECRETS", "TWILIO_AUTH_TOKEN", "REDIRECT_TO"}
    assert set(found) == {f"DELIVERY_{name}" for name in {*given, *missing} - right}
    assert "s3cret" not in str(found)
    assert found["DELIVERY_RECEIPTS_EMAIL"] == "must be 'postmark', 'sendgrid', 'mailgun', 'ses' or 'generic'"


def test_a_mistake_is_told_once_where_a_channel_leans_on_it() -> None:
    given = {"CHANNELS": "sms-46elks", "46ELKS_USER": "u", "46ELKS_PASSWORD": "p", "SMS_FROM": "Butikken"}
    given |= {"RECEIPT_SECRET": "s" * 16}
    assert set(mistakes(**given, PUBLIC_URL=None, REDIRECT_TO="x")) == {"DELIVERY_PUBLIC_URL", "DELIVERY_REDIRECT_TO"}
    load_settings({}, need=Need.STORE)
    load_settings({"DELIVERY_CHANNELS": "sms-46elks"}, need=Need.DECIDING)  # which opens none


def test_a_host_in_any_alphabet_is_what_is_signed() -> None:
    settings = loaded(PUBLIC_URL="https://Blåbær.example:8443/a, https://xn--blbr-roah.example, https://[::1]:8443")
    assert settings.public_url == (
        "https://xn--blbr-roah.example:8443/a",
        "https://xn--blbr-roah.example",
        "https://[::1]:8443",
    )
    assert signed_host(settings.public_url[0]) == "xn--blbr-roah.example"


ADDRESSES = [
    *(
        "kari@nordmann.example",
        " Kari.N+1@Blåbær.example ",
        "kari",
        "kari@host",
        "kari@nordmann.local",
        "@",
        "a@b@c.no",
    ),
    *(
        "kåre@nordmann.example",
        '"odd, local"@nordmann.example',
        "kari@[10.0.0.1]",
        "kari@nordmann.test",
        "k" * 65 + "@x.no",
    ),
]


@pytest.mark.parametrize("text", ADDRESSES)
def test_settings_take_the_addresses_that_the_channel_takes(text: str) -> None:
    usable = usable_address(text)
    if usable is not None:
        assert loaded(MAIL_BCC=text).mail_bcc == Mailbox(name="", address=usable)
    else:
        assert mistakes(MAIL_BCC=text)["DELIVERY_MAIL_BCC"].startswith("must be a mail address ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kari@nordmann.local", "domain of the Internet"),
        ("kari@host", "domain of the Internet"),
        ("kåre@nordmann.example", "ASCII before the @"),
        ('"odd, local"@nordmann.example', "without quotation marks"),
        ("kari", "such as name@example.com"),
        ("kari@", "such as name@example.com"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(text: str, words: str) -> None:
    assert words in mistakes(MAIL_BCC=text)["DELIVERY_MAIL_BCC"]


def test_mail_settings_are_required_for_mail_only() -> None:
    assert set(mistakes(SMTP_URL=None, MAIL_FROM=None)) == {"DELIVERY_SMTP_URL", "DELIVERY_MAIL_FROM"}
    assert loaded(SMTP_URL=None, MAIL_FROM=None, CHANNELS="shop.paper:open").smtp_url is None


def test_a_test_account_reaches_nobody_unless_told() -> None:
    assert "ALLOW_REAL_RECIPIENTS" in mistakes(REDIRECT_TO=None)["DELIVERY_REDIRECT_TO"]
    assert loaded(REDIRECT_TO=None, ALLOW_REAL_RECIPIENTS="true").redirect_to is None
    assert loaded(ALLOW_REAL_RECIPIENTS="true").redirect_to == Redirect(email="test@butikken.example")
    assert set(mistakes(ALLOW_REAL_RECIPIENTS="perhaps", REDIRECT_TO=None)) == {"DELIVERY_ALLOW_REAL_RECIPIENTS"}


def test_a_live_account_is_never_redirected() -> None:
    assert set(mistakes(ACCOUNT_ID="P12345678")) == {"DELIVERY_REDIRECT_TO"}
    assert loaded(ACCOUNT_ID="P12345678", REDIRECT_TO=None).redirect_to is None


def test_only_a_test_account_may_go_unsigned() -> None:
    settings = loaded(SIGNATURE_SECRETS=None, ALLOW_UNSIGNED="true")
    assert (settings.allow_unsigned, settings.signature_secrets) == (True, ())
    assert any("ALLOW_UNSIGNED" in warning for warning in settings.warnings)
    assert loaded(ALLOW_UNSIGNED="true").warnings == (), "with a secret nobody else can call"
    found = mistakes(ACCOUNT_ID="P12345678", REDIRECT_TO=None, SIGNATURE_SECRETS=None, ALLOW_UNSIGNED="true")
    assert "DELIVERY_ALLOW_UNSIGNED" in found


@pytest.mark.parametrize("name", ["BRAND_LOGO", "BRAND_LOGO_DARK"])
def test_a_logo_is_a_png_of_bearable_size(tmp_path: Path, name: str) -> None:
    logo = tmp_path / "logo.png"
    (tmp_path / "light.png").write_bytes(PNG)
    light = {"BRAND_LOGO": str(tmp_path / "light.png")}
    for content, good in [
        (PNG, True),
        (b"GIF89a" + bytes(64), False),
        (PNG[:8], False),
        (PNG[:33], False),
        (PNG[:-1], False),
        (PNG[:8] + PNG[33:], False),
        (PNG.replace(b"IDAT", b"IDAX"), False),
        (PNG[:45] + b"?" + PNG[46:], False),
        (PNG[:8] + chunk(b"IHDR", bytes(13)) + PNG[33:], False),
        (png(5000, 5000), True),
        (png(5001, 1), False),
        (PNG + bytes(512 * 1024 - len(PNG)), True),
        (PNG + bytes(512 * 1024 - len(PNG) + 1), False),
    ]:
        logo.write_bytes(content)
        if good:
            brand = loaded(**light | {name: str(logo)}).brand
            assert (brand.logo_dark if name == "BRAND_LOGO_DARK" else brand.logo) == content
        else:
            assert set(mistakes(**light | {name: str(logo)})) == {f"DELIVERY_{name}"}
    assert set(mistakes(**light | {name: str(tmp_path)})) == {f"DELIVERY_{name}"}


def test_a_logo_for_dark_screens_alone_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "dark.png").write_bytes(PNG)
    assert mistakes(BRAND_LOGO_DARK=str(tmp_path / "dark.png")) == {
        "DELIVERY_BRAND_LOGO_DARK": "needs DELIVERY_BRAND_LOGO beside it"
    }


def test_commands_on_the_record_need_the_database_alone(tmp_path: Path) -> None:
    given_env = {"DELIVERY_CONCURRENCY": "none", "DELIVERY_CLIENT_SECRET_FILE": str(tmp_path / "missing")}
    url = "postgresql://user:pw@host/name"
    settings = load_settings({**given_env, "DELIVERY_DATABASE_URL": url}, need=Need.STORE)
    assert settings.database_url.get_secret_value() == url
    with pytest.raises(SettingsError) as caught:
        load_settings({**given_env, "DELIVERY_DATABASE_URL": "nowhere"}, need=Need.STORE)
    assert [line.split(":")[0] for line in caught.value.mistakes] == ["DELIVERY_DATABASE_URL"]
    with pytest.raises(SettingsError) as caught:
        load_settings({"DELIVERY_DATABASE_URL_FILE": str(tmp_path / "missing")}, need=Need.STORE)
    assert [line.split(":")[0] for line in caught.value.mistakes] == ["DELIVERY_DATABASE_URL_FILE"]


def test_commands_on_pauses_need_the_account_too(tmp_path: Path) -> None:
    given_env = {"DELIVERY_CONCURRENCY": "none", "DELIVERY_CLIENT_SECRET_FILE": str(tmp_path / "missing")}
    settings = load_settings({**given_env, "DELIVERY_ACCOUNT_ID": "P12345678"}, need=Need.ACCOUNT)
    assert settings.account_id == "P12345678"
    for wrong in ({}, {"DELIVERY_ACCOUNT_ID": "mine"}):
        with pytest.raises(SettingsError) as caught:
            load_settings({**given_env, **wrong}, need=Need.ACCOUNT)
        assert [line.split(":")[0] for line in caught.value.mistakes] == ["DELIVERY_ACCOUNT_ID"]


def test_some_commands_need_nothing() -> None:
    settings = load_settings({"DELIVERY_DATABASE_URL": "nowhere"}, need=Need.NOTHING)
    assert [*settings.retry_delays] == [60, 300, 900, 1800, 3600, 7200]


SECRETS = {
    "CLIENT_SECRET": "q7-client",
    "SIGNATURE_SECRETS": "q7-first,q7-second",
    "WEBHOOK_SECRETS": "q7-hook",
    "SMTP_URL": "smtp://user:q7-smtp@mail.example:587",
    "DATABASE_URL": "postgresql://user:q7-base@host/name",
}


def test_no_secret_is_ever_shown() -> None:
    settings = loaded(**SECRETS)
    assert "q7" not in repr(settings)
    assert "q7" not in str(settings)
    assert {"q7-client", "q7-first", "q7-second", "q7-hook", "q7-smtp", "q7-base"} <= set(settings.secret_texts)


@pytest.mark.parametrize("spoil", ["{}\n{}", "{}\x07", "http://q7:q7@[q7", "smtp://q7:q7#q7@h:q7", "{0}?{0}#{0}", "q7"])
def test_no_mistake_quotes_a_secret(spoil: str) -> None:
    spoilt = {name: spoil.format(text, text) for name, text in SECRETS.items()}
    with pytest.raises(SettingsError) as caught:
        loaded(**{**spoilt, "ACCOUNT_ID": "q7", "PUBLIC_URL": "https://q7:q7@[q7"})
    assert caught.value.__cause__ is None or "q7" not in str(caught.value.__cause__)
    assert "q7" not in str(caught.value)


def test_passwords_are_known_however_they_are_written() -> None:
    assert {"smtp-pass%C3%B8rd", "smtp-passørd"} <= set(loaded().secret_texts)


@pytest.mark.parametrize("name", sorted(secret_names()))
def test_every_secret_is_kept_out_of_the_log(name: str) -> None:
    """Whatever may be given as a file: whole, or the password in it; addresses are scrubbed as such."""
    key, password = "c3" * 32, "q7-pass"
    given = {
        "LINK_KEY": key,
        "ALERT_URL": "https://hook.example/q7",
        "SMTP_URL": f"smtp://user:{password}@mail.example",
        "DATABASE_URL": f"postgresql://user:{password}@host/name",
        "GROUP_ADDRESSES": "NO923456789=a@b.example",
    }
    short = name.removeprefix("DELIVERY_")
    text = given.get(short, "q7-secret")
    oauth = {
        "SMTP_OAUTH_TOKEN_URL": "https://x.example/t",
        "SMTP_OAUTH_CLIENT_ID": "c",
        "SMTP_OAUTH_CLIENT_SECRET": "d",
    }
    beside = oauth | {"SMTP_URL": "smtp://user@mail.example"} if short.startswith("SMTP_OAUTH_") else {}
    found = loaded(**{**beside, short: text}).secret_texts
    shown = {"SMTP_URL": password, "DATABASE_URL": password}.get(short, text)
    assert (shown in found) is (short != "GROUP_ADDRESSES")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded().concurrency = 2


CONTRACT = """ACCOUNT_ID CLIENT_ID CLIENT_SECRET CHECKOUT_URL API_URL FILE_HOSTS SIGNATURE_SECRETS ALLOW_UNSIGNED
SIGNATURE_TOLERANCE WEBHOOK_SECRETS PUBLIC_URL INVOICE_CHANNEL CAPTURE_ORDER DATABASE_URL CHANNELS SMTP_URL MAIL_FROM
MAIL_REPLY_TO MAIL_BCC REDIRECT_TO ALLOW_REAL_RECIPIENTS BRAND_NAME BRAND_LOGO BRAND_LOGO_DARK BRAND_COLOR
BRAND_ORGANIZATION_NUMBER
BRAND_SUPPORT_EMAIL BRAND_SUPPORT_PHONE BRAND_WEBSITE TEMPLATES_DIR LOCALE TIMEZONE CONCURRENCY LEASE_SECONDS STOP_GRACE
LINK_KEY LINK_DAYS LINK_STORE
RETRY_DELAYS GIVE_UP_AFTER CAPTURE_GIVE_UP_AFTER UNCONFIRMED_RETRIES UNCONFIRMED_DELAY MIN_DAYS_BEFORE_DUE
RECONCILE_EVERY MAX_PDF_BYTES BYTES_IN_HAND RETAIN_PERSONAL_DAYS ALERT_TO ALERT_URL SILENCE_HOURS
SMTP_OAUTH_TOKEN_URL SMTP_OAUTH_CLIENT_ID SMTP_OAUTH_CLIENT_SECRET SMTP_OAUTH_REFRESH_TOKEN SMTP_OAUTH_SCOPE
ROUTES_FILE FALLBACK_AFTER SMTP_RATE MAX_ATTACHMENT_BYTES CONTENT_GATE CANCEL_NOTICE CAPTURE_DELAY
RECEIPTS_EMAIL RECEIPTS_EMAIL_SECRET HTTP_URL HTTP_SECRETS HTTP_DOCUMENT HTTP_ALLOW_PRIVATE
SMS_FROM RECEIPT_SECRET TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN TWILIO_MESSAGING_SERVICE_SID TWILIO_URL
SINCH_REGION SINCH_SERVICE_PLAN_ID SINCH_API_TOKEN SINCH_WEBHOOK_SECRET SINCH_URL
LINKMOBILITY_URL LINKMOBILITY_USER LINKMOBILITY_PASSWORD LINKMOBILITY_PLATFORM_ID LINKMOBILITY_PARTNER_ID
LINKMOBILITY_GATE 46ELKS_USER 46ELKS_PASSWORD 46ELKS_URL GATEWAYAPI_TOKEN GATEWAYAPI_WEBHOOK_SECRET GATEWAYAPI_URL
GROUP_INTERVAL GROUP_DAYS_UNTIL_DUE GROUP_GIVE_UP_DAYS GROUP_ADDRESSES GROUP_NOTICE HOLIDAY_COUNTRY
ADMIN_PORT ADMIN_HOST LOG_FORMAT LOG_LEVEL"""


def test_names_are_those_that_are_promised() -> None:
    assert sorted(setting_names()) == sorted(f"DELIVERY_{name}" for name in CONTRACT.split())


def test_people_are_told_at_addresses_and_at_an_address() -> None:
    settings = loaded(
        ALERT_TO="vakt@butikken.example, Kari@butikken.example,vakt@butikken.example", SILENCE_HOURS="7.5"
    )
    assert settings.alert_to == ("vakt@butikken.example", "Kari@butikken.example")
    assert (settings.alert_url, settings.silence_hours) == (None, 7.5)
    assert loaded().silence_hours == 20
    assert loaded(SILENCE_HOURS="0").silence_hours == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.chat.example/services/T0/B0/s3cret?thread=1",
        "http://127.0.0.1:9000/",
        "http://localhost/x",
        "http://10.1.2.3/x",
        "http://[::1]:80/x",
    ],
)
def test_an_alert_address_is_kept_as_it_is_and_is_a_secret(url: str) -> None:
    settings = loaded(ALERT_URL=url)
    assert settings.alert_url is not None
    assert settings.alert_url.get_secret_value() == url
    assert url in settings.secret_texts
    assert url not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.chat.example/s3cret",
        "http://8.8.8.8/s3cret",
        "http://0.0.0.0/s3cret",
        "ftp://hooks.chat.example/s3cret",
        "https://user:s3cret@hooks.chat.example/",
        "https://hooks.chat.example/s3cret#there",
        "https:///s3cret",
        "https://[s3cret",
        "https://hooks.chat.example/s3cret x",
        "https://hooks.chat.example/s3cret\u00e6",
    ],
)
def test_a_wrong_alert_address_is_told_without_it(url: str) -> None:
    found = mistakes(ALERT_URL=url)
    assert list(found) == ["DELIVERY_ALERT_URL"]
    assert "s3cret" not in found["DELIVERY_ALERT_URL"]


def test_alerts_by_mail_need_a_mail_server() -> None:
    found = mistakes(
        ALERT_TO="vakt@butikken.example",
        CHANNELS="acme.post:open_post",
        SMTP_URL=None,
        MAIL_FROM=None,
        SILENCE_HOURS="-1",
    )
    assert found == {
        "DELIVERY_ALERT_TO": "needs DELIVERY_SMTP_URL and DELIVERY_MAIL_FROM",
        "DELIVERY_SILENCE_HOURS": "must be a number of hours, such as 20, or 0 for never",
    }
    assert "DELIVERY_ALERT_TO" in mistakes(ALERT_TO="vakt@, kari@butikken.example")


def test_grouped_invoices_have_their_settings() -> None:
    settings = loaded()
    assert settings.group_terms == Terms()
    assert (settings.group_give_up_days, settings.holiday_country) == (10, None)
    settings = loaded(
        GROUP_INTERVAL="quarterly", GROUP_DAYS_UNTIL_DUE="0", GROUP_GIVE_UP_DAYS="3", HOLIDAY_COUNTRY="se"
    )
    assert settings.group_terms == Terms(interval=Interval.QUARTERLY, days_until_due=0)
    assert (settings.group_give_up_days, settings.holiday_country) == (3, "SE")
    wrong = mistakes(GROUP_INTERVAL="weekly", GROUP_DAYS_UNTIL_DUE="366", GROUP_GIVE_UP_DAYS="0", HOLIDAY_COUNTRY="NOR")
    assert set(wrong) == {
        f"DELIVERY_{name}"
        for name in ("GROUP_INTERVAL", "GROUP_DAYS_UNTIL_DUE", "GROUP_GIVE_UP_DAYS", "HOLIDAY_COUNTRY")
    }


def test_an_organisation_has_its_address_however_its_number_is_written(tmp_path: Path) -> None:
    text = "NO 923 456 789=faktura@example.no, 556677-8899=post@bolag.example,SE5566778899=ap@bolag.example"
    for settings in (
        loaded(GROUP_ADDRESSES=text),
        loaded(GROUP_ADDRESSES_FILE=str(_written(tmp_path / "addresses", text))),
    ):
        found = settings.group_addresses
        assert found.of("NO", "923 456 789 MVA") == "faktura@example.no"
        assert found.of("SE", "556677-8899") == "ap@bolag.example"
        assert found.of("FI", "5566778899") == "post@bolag.example"
        assert found.of(None, "5566778899") == "post@bolag.example"
        assert found.of("SE", "923456789") is None
        assert found.of("NO", None) is None
        assert "example" not in repr(found)
        assert "faktura" not in repr(settings)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("NO923456789=a@example.no,faktura@example.no", "entry 2 "),
        ("NO923456789=secret-at-example", "NO923456789"),
        ("NO923456789=a@example.no,no 923456789=b@example.no", "entry 2: NO923456789 is there twice"),
        ("NO12=a@example.no", "entry 1 "),
        ("=a@example.no", "entry 1 "),
    ],
)
def test_a_bad_entry_is_named_and_no_address_shown(text: str, named: str) -> None:
    why = mistakes(GROUP_ADDRESSES=text)["DELIVERY_GROUP_ADDRESSES"]
    assert named in why
    assert "example" not in why


@pytest.mark.parametrize(
    "text", ["00" * 32, "FF" * 32, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=", "-_" * 21 + "8", "+/" * 21 + "8="]
)
def test_a_key_is_base64_or_hex(text: str) -> None:
    found = loaded(LINK_KEY=text)
    assert found.link_key is not None
    assert len(key_bytes(found.link_key.get_secret_value())) == 32
    assert text in found.secret_texts
    assert text not in repr(found)


@pytest.mark.parametrize("text", ["short", "00" * 31, "00" * 33, "g" * 64, "QUJD=", "A" * 45])
def test_any_other_key_is_refused_kindly(text: str) -> None:
    said = "must be 32 random bytes in base64 or hex, as `openssl rand -base64 32` makes them"
    assert mistakes(LINK_KEY=text) == {"DELIVERY_LINK_KEY": said}


def test_documents_behind_links_have_a_place() -> None:
    assert (loaded().link_key, loaded().link_days, loaded().link_store) == (None, 60, "database")
    for place in ("database", "/var/lib/documents", "documents", "s3://a-bucket", "s3://a-bucket/and/a/prefix"):
        assert loaded(LINK_STORE=place).link_store == place
    for wrong in ("gs://bucket", "https://bucket.example/x", "s3://", "s3:///prefix", "s3:/bucket"):
        assert "s3://bucket/prefix" in mistakes(LINK_STORE=wrong)["DELIVERY_LINK_STORE"]
    assert set(mistakes(LINK_DAYS="0")) == {"DELIVERY_LINK_DAYS"}


def test_a_bucket_needs_what_speaks_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "obstore", raising=False)
    importlib.invalidate_caches()
    assert "merchant-delivery[s3]" in mistakes(LINK_STORE="s3://a-bucket/p")["DELIVERY_LINK_STORE"]
