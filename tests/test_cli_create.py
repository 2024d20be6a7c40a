"""`sessions create` and `invoices create`: what they send, say and leave behind, and their exit status."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from service.clock import SystemClock
from service.ordering import CALLBACK_OPTIONS, PRODUCTS
from service.simulator.api import open_provider
from tests.creation_peer import STRICT, STRICT_SUCCESS, Peer, open_peer
from tests.orders import BUSINESS, CALLBACK, CONSUMER, batch, document
from tests.processes import command
from tests.servers import Loopback

TOML = """
product = "invoice_b2b"
invoice_channel = "merchant"
url.return_url = "https://shop.example/thanks"
[order]
amount = 29900
currency = "NOK"
merchant_reference = "inv-1"
[[order.items]]
description = "Abonnement"
amount = 29900
vat = 25
"""


class Hand:
    def __init__(self, peer: Peer, cwd: Path) -> None:
        self.peer = peer
        self.cwd = cwd

    def write(self, name: str, content: Any) -> str:
        (self.cwd / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    async def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        done, out, err = await command(*arguments, settings=self.peer.settings, cwd=self.cwd)
        assert done == status, (out, err)
        assert "Traceback" not in err
        return out, err


@pytest.fixture
async def hand(tmp_path: Path) -> AsyncIterator[Hand]:
    async with open_peer() as peer:
        yield Hand(peer, tmp_path)


async def test_a_session_is_created_from_toml(hand: Hand) -> None:
    file = hand.write("session.toml", TOML)
    out, _ = await hand.run("sessions", "create", file, "--profile", "p1")
    assert out == "Session s1: https://checkout.example/s\n"
    (sent,) = hand.peer.sessions
    assert sent["profile_id"] == "p1"
    assert sent["url"] == {"return_url": "https://shop.example/thanks", "callback_url": CALLBACK}
    assert sent["configuration"]["kravia"]["invoice_b2b"]["invoice_channel"] == "merchant"
    out, _ = await hand.run("sessions", "create", file, "--json")
    assert json.loads(out)["session_id"] == "s2"


async def test_an_invoice_is_created_once(hand: Hand) -> None:
    file = hand.write("invoice.json", document())
    out, _ = await hand.run("invoices", "create", file)
    assert out == "Created T12345678.t1 (AUTHORIZED) for inv-1.\n"
    out, _ = await hand.run("invoices", "create", file, "--json")
    assert json.loads(out)["result"] == "existed"
    assert hand.peer.created() == ["inv-1"]


async def test_in_two_steps(hand: Hand) -> None:
    file = hand.write("invoice.json", document())
    await hand.run("invoices", "create", file, "--two-step")
    (session,), (pay,) = hand.peer.sessions, hand.peer.posts()
    assert session["configuration"]["kravia"]["invoice_b2b"]["require_identity_verification"] is False
    assert pay.target == "/v1/sessions/s1/pay"
    assert json.loads(pay.body)["billing_address"] == BUSINESS


@pytest.mark.parametrize(
    "arguments", [("sessions", "create"), ("invoices", "create"), ("invoices", "create", "--two-step")]
)
async def test_a_dry_run_prints_the_request_and_sends_nothing(hand: Hand, arguments: tuple[str, ...]) -> None:
    file = hand.write("one.json", document(url={"return_url": "https://shop.example"}))
    out, _ = await hand.run(*arguments, file, "--dry-run", "--json")
    calls = json.loads(out)
    assert len(calls) == (2 if "--two-step" in arguments else 1)
    assert all(f"{name}={value}" in out for name, value in CALLBACK_OPTIONS)
    words, _ = await hand.run(*arguments, file, "--dry-run")
    assert words.startswith(f"POST {calls[0]['path']}\nDintero-Feature-Toggles: strict-")
    assert hand.peer.loopback is not None
    assert hand.peer.loopback.seen == []


async def test_a_failure_with_status_200_is_one_and_names_nobody(hand: Hand) -> None:
    file = hand.write("invoice.json", document())
    hand.peer.trouble["inv-1"] = "declined"
    out, err = await hand.run("invoices", "create", file, status=1)
    assert out == ""
    assert "Failed, T12345678.t1 (FAILED): declined: *** was not approved." in err
    await hand.run("invoices", "create", file, status=1)
    assert hand.peer.created() == []
    hand.peer.trouble["inv-1"] = "lost"
    out, _ = await hand.run("invoices", "create", file, "--retry-failed")
    assert "Created T12345678.t2" in out


async def test_what_cannot_be_confirmed_is_said_in_so_many_words(hand: Hand) -> None:
    file = hand.write("invoice.json", document())
    hand.peer.trouble["inv-1"] = "ignored"
    _, err = await hand.run("invoices", "create", file, status=1)
    assert "NOT KNOWN" in err
    assert len(hand.peer.posts()) == 1


def _wrong_amount(given: Any) -> Any:
    given["order"]["amount"] = 1
    return given


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", lambda: _wrong_amount(document()), "order.items: add up to 29900, and order.amount is 1"),
        ("a.json", lambda: "{", "a.json: is no JSON"),
        ("a.toml", lambda: "= 1", "a.toml: is no TOML"),
        ("a.csv", lambda: "amount\n1\n", "the head: merchant_reference is missing"),
        ("a.csv", lambda: batch("a", "a"), "line 3: merchant_reference: is that of line 2, too"),
    ],
)
async def test_mistakes_are_exit_2_and_nothing_is_sent(
    hand: Hand, name: str, content: Callable[[], Any], words: str
) -> None:
    _, err = await hand.run("invoices", "create", hand.write(name, content()), status=2)
    assert words in err
    assert hand.peer.loopback is not None
    assert hand.peer.loopback.seen == []


async def test_a_batch_asks_and_says_how_it_went(hand: Hand) -> None:
    file = hand.write("batch.csv", batch("a", "b", "c"))
    _, err = await hand.run("invoices", "create", file, status=2)
    assert "3 to create of 3 invoices, 897.00 NOK, for account T12345678: --yes creates them" in err
    hand.peer.trouble["b"] = "declined"
    out, _ = await hand.run("invoices", "create", file, "--yes", status=1)
    assert "b          failed" in out
    assert "3 invoices: 2 created, 1 failed. Each is in batch.result.csv." in out
    out, _ = await hand.run("invoices", "create", file, "--yes", "--retry-failed", "--json")
    said = json.loads(out)
    assert said["counts"] == {"created": 3}
    assert [one["merchant_reference"] for one in said["invoices"]] == ["a", "b", "c"]
    assert hand.peer.created() == ["a", "c", "b"]


async def test_what_is_agreed_to_is_all_that_may_be_created(hand: Hand) -> None:
    file = hand.write("batch.csv", batch("a", "b", "c"))
    hand.peer.trouble |= {"b": "declined", "c": 403}
    await hand.run("invoices", "create", file, "--yes", status=1)
    _, err = await hand.run("invoices", "create", file, status=2)
    assert "1 to create of 3 invoices, 299.00 NOK" in err
    _, err = await hand.run("invoices", "create", file, "--retry-failed", status=2)
    assert "2 to create of 3 invoices, 598.00 NOK" in err
    out, _ = await hand.run("invoices", "create", file, "--retry-failed", "--dry-run", "--json")
    toggles = [one["headers"]["Dintero-Feature-Toggles"] for one in json.loads(out)]
    assert toggles == [STRICT, STRICT_SUCCESS, STRICT]
    kept = hand.cwd / "batch.result.csv"
    kept.write_text(kept.read_text().replace("not_sent", "sending"))
    _, err = await hand.run("invoices", "create", file, status=2)
    assert "1 to create of 3 invoices" in err


async def test_a_client_that_is_refused_stops_the_batch(hand: Hand) -> None:
    file = hand.write("batch.csv", batch("a", "b", "c"))
    hand.peer.trouble["b"] = 401
    hand.peer.trouble["a"] = 403
    out, err = await hand.run("invoices", "create", file, "--yes", status=1)
    assert "1 not sent, 2 not reached" in out
    assert "Stopped: Dintero answered 403" in err


async def test_a_result_file_that_cannot_be_is_said_kindly(hand: Hand) -> None:
    file = hand.write("batch.csv", batch("a"))
    _, err = await hand.run("invoices", "create", file, "--yes", "--result", "missing/x.csv", status=1)
    assert err.startswith("The result file cannot be used: ")
    assert hand.peer.created() == []


@pytest.mark.parametrize("options", [("--yes",), ("--result", "x.csv"), ("--profile", "p1")])
async def test_options_of_the_other_kind_are_refused(hand: Hand, options: tuple[str, ...]) -> None:
    await hand.run("invoices", "create", hand.write("a.json", document()), *options, status=2)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("two_step", [False, True])
async def test_the_simulated_provider_takes_it_once(tmp_path: Path, product: str, two_step: bool) -> None:
    """A whole provider in place of the small one: token, checks, strictness and listing are its own."""
    async with open_provider(clock=SystemClock()) as simulated:
        keys = simulated.provider.keys
        settings = Peer(loopback=Loopback(port=1)).settings | {
            "DELIVERY_ACCOUNT_ID": keys.account.id,
            "DELIVERY_CLIENT_ID": keys.account.client_id,
            "DELIVERY_CLIENT_SECRET": keys.account.client_secret,
            "DELIVERY_CHECKOUT_URL": simulated.url,
            "DELIVERY_API_URL": simulated.url,
            "DELIVERY_PUBLIC_URL": "http://127.0.0.1:9",
        }
        hand_file = write(tmp_path / "one.json", document(product, days_until_due=20))
        options = ("--two-step",) if two_step else ()
        for expected in ("created", "existed"):
            status, out, err = await command(
                "invoices", "create", hand_file, "--json", *options, settings=settings, cwd=tmp_path
            )
            assert status == 0, err
            assert json.loads(out)["result"] == expected
        (transaction,) = simulated.provider.transactions.values()
        assert transaction["payment_product_type"] == f"kravia.{product}"
        assert transaction["billing_address"] == (CONSUMER if product == "invoice_b2c" else BUSINESS)


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)
