"""`reconcile` by hand: what it finds, says and enters, and what it lets out."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.processes import clean_environment, command
from tests.shop import Shop, open_shop, outcomes
from tests.stage import environment


class Hand:
    """An operator with a terminal or without, beside a shop and its record."""

    def __init__(self, shop: Shop, database_url: str, cwd: Path) -> None:
        self.shop = shop
        self.database_url = database_url
        self.cwd = cwd
        self.settings = environment(shop.running, shop.mail, public_url=shop.url, database_url=database_url)

    def days_ago(self, days: float) -> str:
        return (self.shop.clock.now() - timedelta(days=days)).date().isoformat()

    async def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        done, out, err = await command("reconcile", *arguments, settings=self.settings, cwd=self.cwd)
        assert done == status, err
        return out, err

    async def json(self, *arguments: str) -> Any:
        out, err = await self.run("--json", *arguments)
        assert err == ""
        return json.loads(out)

    async def typed(self, answer: bytes, *arguments: str) -> tuple[int, str, str]:
        """Run it on a terminal, for input and errors, and answer what it asks."""
        ours, theirs = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "reconcile", *arguments),
                env=clean_environment(self.settings),
                cwd=self.cwd,
                stdin=theirs,
                stdout=asyncio.subprocess.PIPE,
                stderr=theirs,
            )
            os.write(ours, answer)
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            shown = await asyncio.to_thread(os.read, ours, 1 << 16)
        finally:
            os.close(ours)
            os.close(theirs)
        assert process.returncode is not None
        return process.returncode, out.decode(), shown.decode()

    async def settle(self) -> dict[str, str]:
        """Let a worker do what is due; it does not look for missed callbacks itself."""
        async with self.shop.service(self.database_url, reconcile_every="0") as service:
            await service.settle()
            return outcomes(await service.record())


@pytest.fixture
async def hand(database_url: str, tmp_path: Path) -> AsyncIterator[Hand]:
    async with open_shop() as shop:
        yield Hand(shop, database_url, tmp_path)


async def test_it_enters_what_was_missed(hand: Hand) -> None:
    missed, old = hand.shop.sell(), hand.shop.sell()
    hand.shop.backdate(old, hours=23)
    out, err = await hand.run()
    assert err == ""
    for transaction_id in (missed, old):
        (line,) = [line for line in out.splitlines() if line.startswith(transaction_id)]
        assert line.endswith("  entered")
    assert out.splitlines()[-1].startswith("2 transactions created since ")
    assert out.splitlines()[-1].endswith(": 2 missed")
    assert await hand.settle() == {missed: "completed", old: "completed"}
    again, _ = await hand.run()
    assert again.endswith(": 2 recorded\n")
    assert len(again.splitlines()) == 1


async def test_nothing_at_all_is_said_kindly(hand: Hand) -> None:
    out, _ = await hand.run()
    assert out.startswith("0 transactions created since ")
    assert out.endswith("Z.\n")


async def test_a_dry_run_changes_nothing(hand: Hand) -> None:
    hand.shop.sell()
    held = hand.shop.sell()
    hand.shop.backdate(held, days=3)
    out, err = await hand.run("--dry-run", "--since", hand.days_ago(5))
    assert "would be entered" in out
    assert "would be entered, and held: older than this record" in out
    assert "1 invoice held" in err
    await hand.run("--dry-run", "--yes", "--since", hand.days_ago(5))
    assert await hand.settle() == {}
    assert hand.shop.mail.inbox == []


async def test_the_json_has_everything(hand: Hand) -> None:
    missed = hand.shop.sell()
    hand.shop.sell(channel="kravia")
    said = await hand.json()
    assert (said["dry_run"], said["counts"]["missed"], said["counts"]["recorded"]) == (False, 2, 0)
    (one,) = [one for one in said["found"] if one["transaction_id"] == missed]
    document = hand.shop.running.provider.transaction(missed)
    assert one == {
        "transaction_id": missed,
        "created_at": document["created_at"].partition(".")[0] + "Z",
        "invoice_number": document["metadata"]["kravia:invoice_number"],
        "found": "missed",
        "held": None,
        "released": False,
    }
    assert (await hand.json())["found"] == []


async def test_what_is_held_goes_out_when_a_person_says_so(hand: Hand) -> None:
    """Those that a worker has held, and those that it would: in one go, and nothing that is older than the date."""
    held, older, later = hand.shop.sell(), hand.shop.sell(), hand.shop.sell()
    hand.shop.backdate(held, days=3)
    hand.shop.backdate(older, days=9)
    hand.shop.backdate(later, days=3)
    begun = hand.shop.sell()
    provider = hand.shop.running.provider
    provider.capture(begun, {"amount": provider.transaction(begun)["amount"], "capture_reference": "somebody"})
    provider.edit(later, lambda document: document.update(payment_product="parked"))
    await hand.run("--since", hand.days_ago(20))
    assert await hand.settle() == {held: "failed", older: "failed", begun: "failed"}
    provider.edit(later, lambda document: document.update(payment_product="kravia"))

    out, err = await hand.run("--since", hand.days_ago(5))
    assert f"{later}" in out
    assert "3 invoices held and not sent; --yes releases them." in err
    assert set((await hand.settle()).values()) == {"failed"}
    assert hand.shop.mail.inbox == []

    said = await hand.json("--since", hand.days_ago(5), "--yes")
    assert {one["transaction_id"]: one["released"] for one in said["found"]} == dict.fromkeys(
        [held, later, begun], True
    )
    assert await hand.settle() == {held: "completed", later: "completed", begun: "completed", older: "failed"}
    assert sorted(hand.shop.mailed()) == sorted([held, later, begun])
    assert sorted(hand.shop.captures()) == sorted([held, later, begun])
    async with hand.shop.service(hand.database_url) as service:
        lines = [entry.detail or "" for entry in await service.app.store.history(held)]
    assert [line for line in lines if "released by" in line and f"--since {hand.days_ago(5)}T00:00:00Z" in line]


async def test_in_one_go_those_that_are_not_yet_recorded_too(hand: Hand) -> None:
    old = hand.shop.sell()
    hand.shop.backdate(old, days=3)
    _, err = await hand.run("--since", hand.days_ago(5), "--yes")
    assert "Released 1 invoice; a worker sends them." in err
    assert await hand.settle() == {old: "completed"}


@pytest.mark.parametrize(("answer", "outcome"), [(b"y\n", "completed"), (b"n\n", "failed")])
async def test_on_a_terminal_it_asks_and_shows_how_far_it_is(hand: Hand, answer: bytes, outcome: str) -> None:
    old = hand.shop.sell()
    hand.shop.backdate(old, days=3)
    status, out, shown = await hand.typed(answer, "--since", hand.days_ago(5))
    assert status == 0
    assert old in out
    assert "Release 1 invoice, so that they are sent? [y/N]" in shown
    assert "Looking" in shown
    assert "100%" in shown
    assert "Looking" not in out
    assert await hand.settle() == {old: outcome}


async def test_with_nothing_held_it_asks_nothing(hand: Hand) -> None:
    hand.shop.sell()
    status, _, shown = await hand.typed(b"", "--since", hand.days_ago(5))
    assert (status, "Release" in shown) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--yes",), "needs --since"),
        (("--since", "yesterday"), "neither a date"),
        (("--since", "2999-01-01"), "ahead"),
    ],
)
async def test_wrong_usage_is_refused(hand: Hand, arguments: tuple[str, ...], words: str) -> None:
    _, err = await hand.run(*arguments, status=2)
    assert words in err
    assert not hand.shop.running.provider.requests


async def test_a_provider_that_does_not_answer_is_said_and_is_exit_1(hand: Hand) -> None:
    hand.settings["DELIVERY_CLIENT_SECRET"] = "another"
    out, err = await hand.run(status=1)
    assert out == ""
    assert "401" in err
    assert "Traceback" not in err
