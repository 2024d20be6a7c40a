"""The invoice page in a real browser on a phone: with and without scripts, by keyboard, in the dark, by its names."""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fpdf import FPDF

from service.delivery import Outcome
from tests.pages import BRAND, Site, open_site
from tests.pictures import png

playwright = pytest.importorskip("playwright.async_api")

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # as in the Makefile and .ci/run
QUIET = (
    *("--headless", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run", "--disable-quic"),
    *("--hide-scrollbars", "--font-render-hinting=none"),  # pixels are the same wherever the tests run
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PHONE = {"width": 360, "height": 740}
SHOTS = os.environ.get("SCREENSHOTS")  # a folder to look at them in
CONTRASTS = """() => {
  const channel = c => c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) {
    const color = numbers(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color; } return [255, 255, 255]; };
  const texts = [...document.querySelectorAll("body *")].filter(
    e => e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return texts.map(e => { const pair = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort();
    const [low, high] = pair[0] < pair[1] ? pair : [pair[1], pair[0]];
    return [e.textContent.trim().slice(0, 40), (high + 0.05) / (low + 0.05)]; });
}"""


def a_pdf() -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("Helvetica", size=24)
    document.cell(text="Faktura A1B2C-000001")
    return bytes(document.output())


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[Site]:
    async with open_site(sqlite_url) as opened:
        yield opened


@cache
def chromium() -> str:
    """Start this process's browser, and return where it takes orders; to start one takes longer than most tests."""
    name = next(filter(None, map(shutil.which, BROWSERS)))
    profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
    arguments = [*QUIET, *(["--no-sandbox"] if os.getuid() == 0 else []), f"--user-data-dir={profile.name}"]
    started = subprocess.Popen(
        [name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    atexit.register(profile.cleanup)
    atexit.register(started.wait)
    atexit.register(started.kill)
    assert started.stderr is not None
    told = next(line for line in started.stderr if "listening on ws://" in line)
    Thread(target=started.stderr.read, daemon=True).start()  # whatever else it says must not fill the pipe
    return told.rpartition(" ")[2].strip()


@asynccontextmanager
async def browsing(**settings: Any) -> AsyncIterator[Any]:
    """Open a phone's window; yields its page. Nothing is left of it for the next."""
    async with playwright.async_playwright() as started:
        browser = await started.chromium.connect_over_cdp(chromium())
        context = await browser.new_context(**({"viewport": PHONE, "is_mobile": True, "locale": "nb-NO"} | settings))
        yield await context.new_page()
        await context.close()
        await browser.close()  # the connection


async def shot(page: Any, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


async def wide(page: Any) -> int:
    """Return by how many pixels one would have to scroll sideways."""
    sideways: int = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return sideways


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_it_and_asks_nobody_else(site: Site, scripts: bool, scheme: str) -> None:
    token = await site.token(a_pdf())
    async with browsing(color_scheme=scheme, java_script_enabled=scripts) as page:
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        answer = await page.goto(f"{site.url}/i/{token}")
        assert answer.status == 200
        await shot(page, f"page-{scheme}")
        assert [url for url in asked if not url.startswith((site.url, "data:"))] == []
        assert said == []  # nothing was refused by the page's own policy
        assert await page.get_by_role("heading", level=1).inner_text() == "Faktura A1B2C-000001"
        button = page.get_by_role("link", name="Åpne fakturaen (PDF)")
        box = await button.bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] < PHONE["height"]  # nobody has to look for it
        if scripts:
            assert await wide(page) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("color", ["#1f3a5f", "#ffe600", "#ffffff", "#e4002b"])
async def test_every_word_can_be_read(sqlite_url: str, scheme: str, color: str) -> None:
    brand = replace(BRAND, color=color, logo=png(400, 90) if color == "#e4002b" else None)
    async with open_site(sqlite_url, brand=brand) as site, browsing(color_scheme=scheme) as page:
        token = await site.token(a_pdf())
        for days, name in ((0, "brand"), (80, "expired")):
            site.clock.advance(days * 86400)
            await page.goto(f"{site.url}/i/{token}")
            await shot(page, f"{name}-{scheme}-{color[1:]}")
            found = await page.evaluate(CONTRASTS)
            assert len(found) > 4
            assert [(words, ratio) for words, ratio in found if ratio < 4.5] == []


@pytest.mark.parametrize("width", [320, 390, 600, 1200])
async def test_nothing_is_cut_off_at_any_width(site: Site, width: int) -> None:
    token = await site.token(a_pdf())
    async with browsing(viewport={"width": width, "height": 900}, is_mobile=False) as page:
        await page.goto(f"{site.url}/i/{token}")
        await shot(page, f"width-{width}")
        assert await wide(page) == 0
        await page.evaluate("document.documentElement.style.fontSize = '32px'")  # a reader's own 200 %
        assert await wide(page) == 0


async def test_by_keyboard_and_by_names(site: Site) -> None:
    token = await site.token(a_pdf())
    async with browsing() as page:
        await page.goto(f"{site.url}/i/{token}")
        assert await page.get_attribute("html", "lang") == "nb"
        assert await page.title() == "Faktura A1B2C-000001 fra Nordlys Møbler AS"
        assert await page.get_by_role("main").count() == 1
        assert await page.get_by_role("contentinfo").count() == 1
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert await focused.inner_text() == "Åpne fakturaen (PDF)"
        assert await focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        outside = []
        for _ in range(3):
            await page.keyboard.press("Tab")
            outside.append(await page.locator(":focus").get_attribute("href"))
        assert outside == [
            "mailto:kundeservice@nordlys.example",
            "tel:+4722123456",
            "https://www.nordlys.example/",
        ]


@pytest.mark.parametrize("scripts", [True, False])
async def test_the_button_leads_to_the_document(site: Site, scripts: bool) -> None:
    pdf = a_pdf()
    token = await site.token(pdf)
    async with browsing(java_script_enabled=scripts) as page:
        await page.goto(f"{site.url}/i/{token}")
        target = await page.get_by_role("link", name="Åpne fakturaen (PDF)").evaluate("e => e.href")
        assert target == f"{site.url}/i/{token}/invoice.pdf"
        got = await page.context.request.get(target)
        assert await got.body() == pdf


@pytest.mark.parametrize("scripts", [True, False])
async def test_an_expired_link_is_renewed_by_its_button(site: Site, scripts: bool) -> None:
    token = await site.token(a_pdf())
    site.clock.advance(80 * 86400)
    async with browsing(java_script_enabled=scripts, color_scheme="dark") as page:
        await page.goto(f"{site.url}/i/{token}")
        assert await page.get_by_role("heading", level=1).inner_text() == "Lenken er utløpt"
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Vi har mottatt forespørselen din").wait_for()
        await shot(page, "renewed")
        assert page.url == f"{site.url}/i/{token}"
        assert (await page.title()).startswith("Vi har mottatt forespørselen din")
    (delivery,) = await site.store.find(site.delivery.id)
    assert (delivery.outcome, delivery.round) == (Outcome.OPEN, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_paper_it_is_black_on_white(site: Site, scheme: str) -> None:
    token = await site.token(a_pdf())
    async with browsing(color_scheme=scheme) as page:
        await page.goto(f"{site.url}/i/{token}")
        await page.emulate_media(media="print", color_scheme=scheme)
        await shot(page, f"print-{scheme}")
        assert not await page.get_by_role("link", name="Åpne fakturaen (PDF)").is_visible()
        assert await page.locator(".amount").evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)"
        found = await page.evaluate(CONTRASTS)
        assert [(words, ratio) for words, ratio in found if ratio < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_dark_screen_gets_the_logo_that_is_for_it(sqlite_url: str, scheme: str) -> None:
    brand = replace(BRAND, logo=png(400, 90), logo_dark=png(300, 60))
    async with open_site(sqlite_url, brand=brand) as site, browsing(color_scheme=scheme) as page:
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(f"{site.url}/i/{await site.token(a_pdf())}")
        await shot(page, f"logo-{scheme}")
        logo = page.get_by_role("img", name=BRAND.name)
        assert await logo.evaluate("e => e.naturalWidth") == (300 if scheme == "dark" else 400)
        assert said == []


async def test_what_there_is_not_says_so(site: Site) -> None:
    async with browsing(locale="en-GB") as page:
        answer = await page.goto(f"{site.url}/i/{'A' * 22}")
        assert answer.status == 404
        assert await page.get_by_role("heading", level=1).inner_text() == "This page does not exist"
        await shot(page, "missing")
