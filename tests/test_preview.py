"""`preview`: every kind in every language, by the code that sends, without a setting."""

import email
import email.policy
import json
from pathlib import Path

import pytest

from tests.commands import run
from tests.test_templates import LOCALES

KINDS = ("invoice", "link", "copy", "cancelled", "notice")
TEXTS = ("invoice", "copy", "cancelled", "notice")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "preview"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_without_a_setting_it_shows_every_kind_in_every_language(folder: Path) -> None:
    done = run("preview")
    assert (done.exit_code, done.stderr) == (0, "")
    mails = {f"mail-{kind}.{end}" for kind in KINDS for end in ("html", "txt", "eml")}
    each = mails | {f"sms-{kind}.txt" for kind in TEXTS} | {"page.html"}
    assert files(folder) == {f"{locale}-{name}" for locale in LOCALES for name in each}
    assert "1 part, " in done.stdout
    assert "Faktura A1B2C-000001 fra Nordmann Sykkel" in done.stdout
    assert "Forfallsdato" in (folder / "nb-page.html").read_text()
    for locale, currency, label in (("fi", "€", "Viitenumero:"), ("da", "kr.", "Betalings-id:"), ("sv", "kr", "OCR-")):
        text = (folder / f"{locale}-mail-invoice.txt").read_text()
        assert f"345,50\u00a0{currency}\n" in text
        assert f"\n{label}" in text  # as at home, and not as from abroad


def test_the_mail_can_be_opened_and_has_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY_BRAND_NAME", "Bjørns Sykkelverksted")
    monkeypatch.setenv("DELIVERY_MAIL_FROM", "Bjørn <faktura@sykkel.example>")
    assert run("preview", "--kind", "mail", "--locale", "sv").exit_code == 0
    assert {name.split("-")[0] for name in files(folder)} == {"sv"}
    mail = email.message_from_bytes((folder / "sv-mail-invoice.eml").read_bytes(), policy=email.policy.default)
    assert (mail["From"], mail["Content-Language"]) == ("Bjørn <faktura@sykkel.example>", "sv")
    assert [part.get_filename() for part in mail.iter_attachments()] == ["Faktura-A1B2C-000001.pdf"]
    linked = email.message_from_bytes((folder / "sv-mail-link.eml").read_bytes(), policy=email.policy.default)
    assert list(linked.iter_attachments()) == []
    assert "Öppna fakturan" in (folder / "sv-mail-link.html").read_text()


def test_a_transaction_is_shown_in_its_readers_language(folder: Path, tmp_path: Path) -> None:
    document = {
        "id": "T1.a",
        "status": "AUTHORIZED",
        "payment_product_type": "kravia.invoice_b2c",
        "amount": 99900,
        "currency": "DKK",
        "billing_address": {"country": "DK", "first_name": "Ib", "last_name": "Dansk"},
        "metadata": {"kravia:invoice_number": "D-7"},
    }
    (tmp_path / "t.json").write_text(json.dumps(document))
    done = run("preview", "--transaction", "t.json", "--kind", "sms", "--out", "there/in")
    assert done.exit_code == 0
    assert files(tmp_path / "there" / "in") == {f"da-sms-{kind}.txt" for kind in TEXTS}
    text = (tmp_path / "there" / "in" / "da-sms-invoice.txt").read_text()
    assert "D-7" in text
    assert "999,00 kr." in text
    other = run("preview", "--transaction", "t.json", "--kind", "page", "--locale", "fi")
    assert "fi-page.html" in other.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mail/invoice.txt", "{{ no_such_name }}"),
        ("pages/invoice.html", "{{ no_such_name }}"),
        ("locales/fi.po", 'msgid "a"\nmsgstr "b'),
    ],
)
def test_a_template_that_will_not_do_is_no_fault_of_a_locale(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("DELIVERY_TEMPLATES_DIR", str(tmp_path))
    done = run("preview")
    assert done.exit_code == 2
    assert done.stderr.startswith("DELIVERY_TEMPLATES_DIR: ")
    assert name in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--locale", "is"], "is has no catalogue; there are da, en, fi, nb, nn, sv"),
        (["--transaction", "rubbish.json"], "rubbish.json: is no JSON"),
        (["--transaction", "list.json"], "list.json: is no transaction of Dintero's"),
        (["--transaction", "null.json"], "null.json: is no transaction of Dintero's"),
        (["--transaction", "empty.json"], "empty.json: is no transaction of Dintero's"),
        (["--transaction", "deep.json"], "deep.json: is no JSON"),
        (["--transaction", "bytes.json"], "bytes.json: is not UTF-8"),
        (["--out", "rubbish.json/x"], "cannot be written"),
    ],
)
def test_what_will_not_do_is_said_kindly(folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    assert not folder.exists()
    (tmp_path / "rubbish.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "null.json").write_text("null")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bytes.json").write_bytes(b"\xff\x00")
    (tmp_path / "empty.json").write_text("{}")
    done = run("preview", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.output
