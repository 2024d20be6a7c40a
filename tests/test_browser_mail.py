"""Every mail in a real browser: all widths, light and dark, any brand's colour, without pictures, its weight."""

import base64
import email
import email.policy
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from email.message import EmailMessage
from functools import cache
from itertools import pairwise, product
from typing import Any

import pytest

from service import app
from service.delivery import Purpose
from service.preview import A_LINK
from service.render.samples import HERE
from service.settings import Need, load_settings
from tests.pictures import png
from tests.test_browser_page import CONTRASTS, browsing, shot, wide
from tests.test_preview import KINDS
from tests.test_templates import COUNTRIES, LOCALES, renderer, sold_in

pytestmark = pytest.mark.browser

WIDTHS = (320, 600, 1200)
SCHEMES = ("light", "dark")
COLORS = ("#000000", "#ffffff", "#ffcc00", "#777777", "#00aa55", "#8f8f8f", "#e4002b", "#1f3a5f", "#0000ff")
SELLER = "Nordlys Møbler AS"
BRAND = {
    "BRAND_NAME": SELLER,
    "BRAND_ORGANIZATION_NUMBER": "923456789",
    "BRAND_SUPPORT_EMAIL": "kundeservice@nordlys.example",
    "BRAND_SUPPORT_PHONE": "+47 22 12 34 56",
    "BRAND_WEBSITE": "https://www.nordlys.example/",
}
LARGEST = 100_000  # bytes; Gmail cuts a mail off at about 102 kB
# The words of labels that are broken in their middle.
BROKEN = """() => [...document.querySelectorAll('th.fact')].filter(e => { const r = document.createRange();
  return [...e.firstChild.data.matchAll(/\\S+/g)].some(w => { r.setStart(e.firstChild, w.index);
    r.setEnd(e.firstChild, w.index + w[0].length); return r.getClientRects().length > 1; }); })
  .map(e => e.textContent)"""
FRAMED = """() => { const e = document.querySelector('.panel'), right = e.parentElement.getBoundingClientRect().right;
  return [...e.querySelectorAll('p'), e].every(
    x => x.getBoundingClientRect().right <= right - 24 && x.scrollWidth <= x.clientWidth); }"""
DARK_CARD, LIGHT_CARD = "rgb(27, 30, 34)", "rgb(255, 255, 255)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail as it goes over the wire, taken apart as a mail program does it."""

    locale: str
    kind: str
    whole: EmailMessage

    def part(self, kind: str) -> str:
        body = self.whole.get_body((kind,))
        assert body is not None
        return str(body.get_content())

    @property
    def html(self) -> str:
        """Return the HTML with its pictures not loaded."""
        return self.part("html")

    @property
    def shown(self) -> str:
        """Return the HTML with the pictures that the mail itself brings."""
        html = self.html
        for part in self.whole.walk():
            if cid := part.get("Content-ID"):
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                html = html.replace(
                    f"cid:{cid.strip('<>')}", f"data:image/png;base64,{base64.b64encode(content).decode()}"
                )
        return html


@cache
def mails(*, locale: str = "nb", **brand: str) -> tuple[Mail, ...]:
    """Return each kind of mail, made by the very code of `preview`."""
    return tuple(_mails(locale, brand))


def _mails(locale: str, brand: dict[str, str]) -> Iterator[Mail]:
    given = {f"DELIVERY_{name}": value for name, value in (BRAND | brand).items()}
    settings = load_settings(given, need=Need.RENDERING)
    at = datetime(2026, 7, 1, tzinfo=UTC)
    for one in app.preview(settings, kind="mail", locale=locale, document=None, read_at=at):
        if one.name.endswith(".eml"):
            tag, _, kind = one.name.removesuffix(".eml").partition("-mail-")
            whole = email.message_from_bytes(one.content, policy=email.policy.default)
            assert isinstance(whole, EmailMessage)
            yield Mail(locale=tag, kind=kind, whole=whole)


@pytest.fixture(scope="module")
def both_logos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("logos")
    for name in ("logo", "dark"):
        (folder / f"{name}.png").write_bytes(png(440, 96))
    return {"BRAND_LOGO": str(folder / "logo.png"), "BRAND_LOGO_DARK": str(folder / "dark.png")}


@pytest.fixture
def logos(both_logos: dict[str, str]) -> dict[str, str]:
    """Return the settings of a brand with a logo and one for dark screens."""
    return dict(both_logos)


@asynccontextmanager
async def reading(width: int, scheme: str) -> AsyncIterator[Any]:
    """Open a mail program's window: no scripts of the mail's own, no network. `asked` is what it wanted of others."""
    async with browsing(viewport={"width": width, "height": 800}, is_mobile=False, color_scheme=scheme) as page:
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        await page.context.set_offline(offline=True)
        yield page
        assert [url for url in page.asked if not url.startswith(("data:", "about:"))] == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
async def test_nothing_is_cut_off_and_nobody_is_asked(width: int, scheme: str, logos: dict[str, str]) -> None:
    async with reading(width, scheme) as page:
        for locale in LOCALES:
            for mail in mails(locale=locale, **logos):
                await page.set_content(mail.shown)
                await shot(page, f"mail-{mail.kind}-{locale}-{width}-{scheme}")
                assert await wide(page) == 0, (locale, mail.kind)
                card = page.locator("table.card")
                assert await card.evaluate("e => e.getBoundingClientRect().width") <= 600
                inside = "e => [...e.querySelectorAll('*')].every(x => x.getBoundingClientRect().right <= innerWidth)"
                assert await card.evaluate(inside), (locale, mail.kind)
                assert await page.evaluate(BROKEN) == [], (locale, mail.kind)


async def test_a_large_sum_and_a_long_date_stay_in_their_frame() -> None:
    made = renderer()
    async with reading(600, "light") as page:
        for locale, amount, currency in product(COUNTRIES, (1234550, 99999900, 99999999999), ("NOK", "EUR")):
            sold = replace(sold_in(locale), amount=amount, currency=currency, due_date=date(2026, 9, 30))
            await page.set_content(made.render("mail", sold, purpose=Purpose.FIRST, recipient=HERE).html)
            for width in WIDTHS:
                await page.set_viewport_size({"width": width, "height": 800})
                assert await page.evaluate(FRAMED), (locale, amount, currency, width)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("color", COLORS)
async def test_every_word_can_be_read(color: str, scheme: str) -> None:
    async with reading(600, scheme) as page:
        for mail in mails(BRAND_COLOR=color):
            await page.set_content(mail.shown)
            for outlook in (False, True):
                if outlook:  # its apps darken a mail by themselves, and mark what they did
                    await page.evaluate(
                        "for (const c of 'cb') document.documentElement.setAttribute('data-ogs' + c, '')"
                    )
                found = await page.evaluate(CONTRASTS)
                assert len(found) > 8
                assert [one for one in found if one[1] < 4.5] == [], (mail.kind, outlook)
                if mail.kind == "link":
                    assert "Åpne fakturaen" in [words for words, _ in found]


@pytest.mark.parametrize(("scheme", "card"), [("light", LIGHT_CARD), ("dark", DARK_CARD)])
async def test_the_dark_one_outlives_inlining(scheme: str, card: str, logos: dict[str, str]) -> None:
    async with reading(600, scheme) as page:
        for mail in mails(**logos):
            assert "@media (prefers-color-scheme: dark)" in mail.html
            await page.set_content(mail.shown)
            assert await page.locator("table.card").evaluate("e => getComputedStyle(e).backgroundColor") == card
            pictures = {name: page.locator(f"img.logo-{name}") for name in SCHEMES}
            seen = [name for name, picture in pictures.items() if await picture.is_visible()]
            assert seen == [scheme], mail.kind
            assert await pictures[scheme].evaluate("e => e.naturalWidth") == 440


@pytest.mark.parametrize("locale", LOCALES)
async def test_it_can_be_read_aloud(locale: str, logos: dict[str, str]) -> None:
    async with reading(600, "light") as page:
        for mail in mails(locale=locale, **logos):
            await page.set_content(mail.shown)
            assert await page.get_attribute("html", "lang") == locale
            assert await page.get_by_role("article", name=SELLER).get_attribute("lang") == locale
            assert await page.title() == mail.whole["Subject"].replace("\n", "")
            levels = await page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(e => +e.tagName[1])")
            assert levels[0] == 1
            assert levels.count(1) == 1
            assert all(after - before <= 1 for before, after in pairwise(levels))
            bare = page.locator("table:not([role=presentation])")
            for rows in await bare.evaluate_all("all => all.map(t => [...t.rows].map(r => r.cells[0].scope))"):
                assert set(rows) == {"row"}
            headed = "all => all.filter(e => e.closest('table').getAttribute('role') === 'presentation').length"
            assert await page.locator("th").evaluate_all(headed) == 0
            assert await page.locator("img").evaluate_all("all => all.map(e => e.alt)") == [SELLER, SELLER]
            links = await page.locator("a").evaluate_all("all => all.map(e => e.textContent.trim() && e.href)")
            assert all(links)
            ids = await page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
            assert len(ids) == len(set(ids))


async def test_the_first_words_are_for_the_list_of_mails_alone() -> None:
    async with reading(600, "light") as page:
        for mail in mails():
            await page.set_content(mail.shown)
            preheader = page.locator(".preheader")
            assert not await preheader.is_visible()
            assert await page.evaluate("document.body.firstElementChild.className") == "preheader"
            words = re.sub(r"[\s\u034f\u200c]+", " ", await preheader.text_content()).strip()
            if mail.kind != "cancelled":
                assert words.startswith("12 345,50 kr"), mail.kind
            if mail.kind in ("invoice", "link", "copy"):
                assert words.endswith("forfaller 15. juli 2026")


@pytest.mark.parametrize("width", WIDTHS)
async def test_the_button_can_be_hit(width: int) -> None:
    (linked,) = (mail for mail in mails() if mail.kind == "link")
    async with browsing(viewport={"width": width, "height": 800}, is_mobile=False) as page:
        await page.route("https://example.com/**", lambda route: route.fulfill(body="there"))
        await page.set_content(linked.shown)
        button = page.get_by_role("link", name="Åpne fakturaen", exact=True)
        box = await button.bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] < 800  # nobody has to look for it
        if width == 320:
            assert box["width"] > 250  # a thumb's
        await page.mouse.click(box["x"] + 4, box["y"] + 4)  # not on the words alone
        await page.wait_for_url(A_LINK)


@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_without_pictures_it_still_says_whose_it_is(scheme: str, dark: bool, logos: dict[str, str]) -> None:
    if not dark:
        del logos["BRAND_LOGO_DARK"]
    async with reading(320, scheme) as page:
        for mail in mails(**logos):
            await page.set_content(re.sub(r'src="cid:[^"]*"', 'src="data:,"', mail.html))
            assert SELLER in await page.inner_text("body")
            shown = page.locator("img:visible")
            assert await shown.count() == 1
            assert await shown.get_attribute("alt") == SELLER
            # What stands for a picture is a text like any other.
            await shown.evaluate("""e => { const s = document.createElement('span');
                s.style.color = getComputedStyle(e).color; s.textContent = e.alt; e.replaceWith(s); }""")
            assert [one for one in await page.evaluate(CONTRASTS) if one[1] < 4.5] == []
            assert await wide(page) == 0


@pytest.mark.parametrize("locale", LOCALES)
def test_it_is_small_and_has_a_twin_in_plain_text(locale: str, logos: dict[str, str]) -> None:
    kinds = []
    for mail in mails(locale=locale, **logos):
        kinds.append(mail.kind)
        assert len(mail.html.encode()) < LARGEST
        text = mail.part("plain")
        assert "<" not in text.replace("<https", "")
        facts = [SELLER, "kundeservice@nordlys.example", "923\u00a0456\u00a0789"]
        if mail.kind != "notice":
            facts.append("A1B2C-000001")
        assert [fact for fact in facts if fact not in text or fact not in mail.html.replace("&nbsp;", "\u00a0")] == []
        assert (A_LINK in text) == (mail.kind == "link")
    assert tuple(kinds) == KINDS


async def test_on_paper_it_can_be_read() -> None:
    async with reading(600, "light") as page:
        for mail in mails(BRAND_COLOR="#1f3a5f"):
            await page.set_content(mail.shown)
            await page.emulate_media(media="print")
            found = await page.evaluate(CONTRASTS)
            assert [one for one in found if one[1] < 4.5] == []
            for amount in await page.locator(".amount").all():
                assert await amount.evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)"
            await page.emulate_media(media="screen")
