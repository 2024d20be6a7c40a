"""Looking into documents: real ones, broken ones, and ones that break what looks."""

import asyncio
import io
import os
import resource
import signal
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fpdf import FPDF
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, StreamObject

from service.delivery import BadDocument, Inspected, TransientFailure
from service.pdf import Limits, PdfInspector, open_inspector


def document(pages: int = 1) -> bytes:
    pdf = FPDF()
    for number in range(pages):
        pdf.add_page()
        pdf.set_font("helvetica", size=12)
        pdf.cell(text=f"page {number}")
    return bytes(pdf.output())


def written(writer: PdfWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def encrypted(user_password: str) -> bytes:
    writer = PdfWriter(clone_from=io.BytesIO(document()))
    writer.encrypt(user_password, owner_password="owner", algorithm="RC4-128")
    return written(writer)


def revised() -> bytes:
    """A document with a second revision appended, so that it holds two ends."""
    writer = PdfWriter(io.BytesIO(document()), incremental=True)
    writer.add_blank_page(width=100, height=100)
    return written(writer)


def assembled(*objects: bytes) -> bytes:
    """A document of these objects, numbered from 1; the first is its catalogue."""
    body, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size, start = len(objects) + 1, len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    body += b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, start)
    return bytes(body)


CATALOGUE = b"<</Type/Catalog/Pages 2 0 R>>"
PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"


def multiplying() -> bytes:
    """A small, whole document whose page tree has 3 ** 40 leaves."""
    levels = (b"<</Type/Pages/Count 1/Kids[%s]>>" % b" ".join([b"%d 0 R" % (level + 3)] * 3) for level in range(40))
    return assembled(CATALOGUE, *levels, PAGE)


def crowded(pages: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % (number + 3) for number in range(pages))
    return assembled(CATALOGUE, b"<</Type/Pages/Count %d/Kids[%s]>>" % (pages, kids), *[PAGE] * pages)


@pytest.fixture
async def inspector() -> AsyncIterator[PdfInspector]:
    async with open_inspector() as opened:
        yield opened


async def problem(inspector: PdfInspector, content: bytes) -> str:
    with pytest.raises(BadDocument) as caught:
        await inspector.inspect(content)
    return caught.value.reason


@pytest.mark.parametrize("pages", [1, 3])
async def test_the_pages_of_a_document(inspector: PdfInspector, pages: int) -> None:
    assert (await inspector.inspect(document(pages))).pages == pages


async def test_whole_documents_of_other_shapes(inspector: PdfInspector) -> None:
    assert (await inspector.inspect(revised())).pages == 2
    assert (await inspector.inspect(document() + b"\r\n" * 100)).pages == 1


async def test_what_will_not_do(inspector: PdfInspector) -> None:
    assert "encrypted" in await problem(inspector, encrypted("secret"))
    assert "encrypted" in await problem(inspector, encrypted(""))
    assert "no pages" in await problem(inspector, written(PdfWriter()))
    assert "cut short" in await problem(inspector, b"")
    assert "cut short" in await problem(inspector, b"<!doctype html><html></html>")
    assert "cannot be opened" in await problem(inspector, b"%PDF-1.7\n" + os.urandom(5000) + b"%%EOF")
    assert "cannot be opened" in await problem(inspector, b"%PDF-1.7\n%%EOF\n")
    assert (await inspector.inspect(document())).pages == 1


@pytest.mark.parametrize("whole", [document(3), revised()], ids=["plain", "revised"])
async def test_a_truncated_document_is_refused_wherever_it_ends(inspector: PdfInspector, whole: bytes) -> None:
    end = whole.rindex(b"%%EOF")
    first_end = whole.index(b"%%EOF") + len(b"%%EOF")
    for length in {*range(0, end, 97), end, end + 4}:
        if length < first_end or length > first_end + 1024:
            assert await problem(inspector, whole[:length])


async def test_one_child_serves_many_documents(inspector: PdfInspector) -> None:
    await inspector.inspect(document())
    (child,) = inspector._all
    await inspector.inspect(document(2))
    await problem(inspector, encrypted("x"))
    assert {child} == inspector._all


async def test_two_children_at_most(inspector: PdfInspector) -> None:
    found = await asyncio.gather(*(inspector.inspect(document(n)) for n in range(1, 9)))
    assert [one.pages for one in found] == list(range(1, 9))
    assert len(inspector._all) == 2


async def test_the_text_of_the_first_and_the_last_pages(inspector: PdfInspector) -> None:
    text = (await inspector.inspect(document(30))).text or ""
    assert text.split("\n") == [f"page {number}" for number in (*range(19), 29)]


def endless() -> bytes:
    """A whole document whose page draws more than anybody can read: 400 MB of text operators in 400 kB."""
    drawn = zlib.compress(b"BT /F1 1 Tf (x) Tj ET\n" * 18_000_000, 9)
    stream = b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(drawn), drawn)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>"
    return assembled(CATALOGUE, b"<</Type/Pages/Count 1/Kids[3 0 R]>>", page, stream)


async def test_a_text_without_end_is_not_read_and_the_document_opens_all_the_same() -> None:
    async with open_inspector(limits=Limits(timeout=5, processor=2)) as inspector:
        found = await inspector.inspect(endless())
        assert (found.pages, found.text or None) == (1, None)
        assert await inspector.inspect(document()) == Inspected(pages=1, text="page 0")


async def test_what_could_be_read_before_a_page_that_cannot_is_told(inspector: PdfInspector) -> None:
    writer = PdfWriter(clone_from=io.BytesIO(document(3)))
    unreadable = StreamObject()
    unreadable[NameObject("/Filter")] = NameObject("/FlateDecode")
    unreadable.set_data(zlib.compress(bytes(80_000_000)))  # more than pypdf unpacks
    writer.pages[2][NameObject("/Contents")] = unreadable
    found = await inspector.inspect(written(writer))
    assert found == Inspected(pages=3, text="page 0\npage 1")
    assert await inspector.inspect(document()) == Inspected(pages=1, text="page 0")


async def test_a_page_tree_that_multiplies_is_refused(inspector: PdfInspector) -> None:
    assert await problem(inspector, multiplying())
    assert (await inspector.inspect(crowded(50))).pages == 50


async def test_a_document_that_never_ends_costs_a_child(inspector: PdfInspector) -> None:
    await inspector.inspect(document())
    (child,) = inspector._all
    child.send_signal(signal.SIGSTOP)  # as a document would that keeps it for ever
    patient, inspector._limits = inspector._limits, Limits(timeout=0.1)
    assert "too long" in await problem(inspector, document())
    assert child.returncode == -signal.SIGKILL
    inspector._limits = patient
    assert (await inspector.inspect(document())).pages == 1


async def test_a_child_that_breaks_over_a_second_document_is_not_that_ones_fault(inspector: PdfInspector) -> None:
    await inspector.inspect(document())
    (child,) = inspector._all
    child.send_signal(signal.SIGSTOP)
    asked = asyncio.create_task(inspector.inspect(document(2)))
    await asyncio.sleep(0)
    child.send_signal(signal.SIGXCPU)  # what the limit of the processor sends
    child.send_signal(signal.SIGCONT)
    assert await asked == Inspected(pages=2, text="page 0\npage 1")
    assert child not in inspector._all
    assert len(inspector._all) == 1


async def test_a_document_that_breaks_a_fresh_child_is_at_fault() -> None:
    too_large = bytes(150 * 1024 * 1024)
    async with open_inspector(limits=Limits(memory=100 * 1024 * 1024)) as inspector:
        assert "breaks the process" in await problem(inspector, too_large)
        assert (await inspector.inspect(document())).pages == 1
        assert "breaks the process" in await problem(inspector, too_large)
        assert not inspector._all


async def test_a_child_that_met_a_hostile_document_sees_no_other(inspector: PdfInspector) -> None:
    assert "cannot be opened" in await problem(inspector, b"%PDF-1.7\n%%EOF\n")
    assert not inspector._all
    assert (await inspector.inspect(document())).pages == 1


async def test_the_processor_is_limited_for_each_document_anew() -> None:
    async with open_inspector(limits=Limits(processor=3)) as inspector:
        await inspector.inspect(document())
        (child,) = inspector._all
        assert resource.prlimit(child.pid, resource.RLIMIT_CPU)[0] in range(3, 7)
        resource.prlimit(child.pid, resource.RLIMIT_CPU, (100, resource.RLIM_INFINITY))
        await inspector.inspect(document())
        assert resource.prlimit(child.pid, resource.RLIMIT_CPU)[0] in range(3, 7)


async def test_memory_is_limited() -> None:
    many = crowded(40_000)
    async with open_inspector(limits=Limits(memory=100 * 1024 * 1024)) as inspector:
        assert (await inspector.inspect(document())).pages == 1
        assert await problem(inspector, many)
        assert not inspector._all  # what it left of the memory would fail the next one
        assert (await inspector.inspect(document())).pages == 1


async def test_a_cancelled_question_leaves_no_wrong_answer() -> None:
    async with open_inspector(children=1) as inspector:
        await inspector.inspect(document())
        (child,) = inspector._all
        child.send_signal(signal.SIGSTOP)
        asked = asyncio.create_task(inspector.inspect(document(3)))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert child.returncode is not None
        assert (await inspector.inspect(document(2))).pages == 2


async def test_a_child_that_died_between_documents_is_replaced(inspector: PdfInspector) -> None:
    await inspector.inspect(document())
    (child,) = inspector._all
    child.kill()
    await child.wait()
    assert (await inspector.inspect(document(2))).pages == 2
    assert child not in inspector._all


async def test_the_children_end_with_the_inspector() -> None:
    async with open_inspector() as inspector:
        await inspector.inspect(document())
        (child,) = inspector._all
    assert child.returncode is not None
    assert not inspector._all


async def test_nothing_of_the_environment_reaches_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY_CLIENT_SECRET", "very-secret")
    async with open_inspector() as inspector:
        await inspector.inspect(document())
        (child,) = inspector._all
        environment = await asyncio.to_thread(Path(f"/proc/{child.pid}/environ").read_bytes)
        assert b"very-secret" not in environment


async def test_a_child_that_cannot_start_is_nobodys_document() -> None:
    async with open_inspector(limits=Limits(memory=1024 * 1024)) as inspector:
        with pytest.raises(TransientFailure) as caught:
            await inspector.inspect(document())
        assert not isinstance(caught.value, BadDocument)


def test_the_samples_are_what_they_say() -> None:
    assert PdfReader(io.BytesIO(encrypted(""))).is_encrypted
    assert revised().count(b"%%EOF") == 2
