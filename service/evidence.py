"""Evidence for a dispute: what is recorded of one delivery as a JSON text, and whether such a text still holds."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.chain import Fields, detail_hash, line_hash, moment
from service.delivery import Capture, Dossier, Link, Proof, Send, Settled, Step
from service.privacy import ERASED
from service.record_json import delivery_json

FORMAT = "merchant-delivery evidence 1"
_WHAT = (
    "What the record of merchant-delivery says about the delivery of one invoice: what was done, when, and what the "
    "others answered. Addresses are masked; recipient_key and organization_key are keyed hashes of them."
)
_HOW = """\
`merchant-delivery evidence verify FILE` does all of this, without settings or a database.
digest: SHA-256 of this document without `digest`, as JSON with its keys sorted, without spaces, everything but ASCII \
escaped. It shows damage. Against whoever could write a new one, note it down, or send the file to somebody, on the \
day that it is made.
history: a line's `hash` is SHA-256 of the JSON array [previous, at, step, result, channel, detail_hash, message_id] \
without spaces, everything but ASCII escaped. `previous` is the hash of the line before it; for the first, the \
delivery's id. A line cannot be changed, taken out or put in without changing every hash after it.
detail_hash: SHA-256 of the salt (its hex digits) followed by the detail in UTF-8. Where personal data was erased, \
detail and salt are null and the hash still stands: whoever kept an earlier copy can prove the words.
Lines without a hash were written by a version that had no chain; it begins after them.
chain: `last` is the hash of the last line as the delivery's own row has it.
sends: mail_sha256 is over all bytes of the mail as it was handed over, document_sha256 over the PDF in it. What sends \
and captures say beyond the history is covered by the digest alone."""


class NotEvidence(Exception):
    """The text is no evidence of this program's; the words say what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was verified, in words."""

    holds: bool
    words: str


# --- writing it ------------------------------------------------------------------------------------------------------


def evidence(dossier: Dossier, *, made_at: datetime, program: str) -> str:
    """Return the document, as JSON in UTF-8 for people to read; `program` is the name and version of this one."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "what": _WHAT,
        "made_at": moment(made_at),
        "program": program,
        "delivery": _delivery(dossier),
        "delivered_rests_on": rests_on(dossier),
        "history": list(_history(dossier)),
        "chain": {"last": dossier.chain},
        "sends": [_send(send) for send in dossier.sends],
        "captures": [_capture(capture) for capture in dossier.captures],
        "how_to_verify": _HOW.splitlines(),
    }
    document["digest"] = _digest(document)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _delivery(dossier: Dossier) -> dict[str, Any]:
    delivery = dossier.delivery
    about = {
        "recipient_key": delivery.recipient_key,
        "organization_key": delivery.organization_key,
        "product_type": delivery.product_type,
        "source": delivery.source,
        "round": delivery.round,
    }
    return {"id": delivery.id} | delivery_json(delivery) | about


def _history(dossier: Dossier) -> Iterator[dict[str, Any]]:
    previous = dossier.delivery.id
    for number, link in enumerate(dossier.links, 1):
        entry = link.entry
        yield {
            "line": number,
            "previous": previous if link.hash else None,
            "at": moment(entry.at),
            "step": entry.step.value,
            "result": entry.result.value,
            "channel": entry.channel,
            "detail": entry.detail,
            "salt": link.salt,
            "detail_hash": link.detail_hash,
            "message_id": entry.message_id,
            "hash": link.hash,
        }
        previous = link.hash or previous


def _send(send: Send) -> dict[str, Any]:
    return {
        "id": send.id,
        "purpose": send.purpose.value,
        "round": send.round,
        "channel": send.channel,
        "recipient": send.recipient,
        "recipient_key": send.recipient_key,
        "message_id": send.message_id,
        "dated": moment(send.dated),
        "mail_sha256": send.sha256,
        "document_sha256": send.document_sha256,
        "template_version": send.template_version,
        "begun_at": moment(send.begun_at),
        "outcome": send.outcome.value,
        "answer": send.answer,
        "proof": send.proof and send.proof.value,
        "settled_at": send.settled_at and moment(send.settled_at),
    }


def _capture(capture: Capture) -> dict[str, Any]:
    return {
        "id": capture.id,
        "transaction_id": capture.transaction_id,
        "reference": capture.reference,
        "amount": capture.amount,
        "begun_at": moment(capture.begun_at),
        "outcome": capture.outcome.value,
        "event_id": capture.event_id,
        "event_request_id": capture.event_request_id,
        "detail": capture.detail,
        "settled_at": capture.settled_at and moment(capture.settled_at),
    }


def rests_on(dossier: Dossier) -> str:
    """Say in words what "delivered" rests on."""
    delivery = dossier.delivery
    if delivery.delivered_at is None:
        return "Nothing: by this record the invoice was not delivered."
    at = moment(delivery.delivered_at)
    if delivery.delivery_proof is Proof.PERSON:
        said = _last_statement(dossier.links)
        return f"A person's word, given {at}. The history says of it: {said or 'the words were erased'}."
    of_invoice = [send for send in reversed(dossier.sends) if send.round >= 0]
    sent = next((send for send in of_invoice if send.outcome is Settled.ACCEPTED), None)
    back = next((send for send in of_invoice if send.outcome is Settled.BOUNCED), None)
    if sent is None and back is not None:
        reported = f", at {moment(back.reported_at)}" if back.reported_at else ""
        return (
            f"Nothing any more: the message {back.message_id} by {back.channel} was accepted at first, and reported "
            f"later as never delivered{reported}."
        )
    if delivery.delivery_proof is Proof.REPORT:
        return f"A report of {sent.channel if sent else 'the channel'} that it reached the customer, known {at}."
    if sent is None:
        return f"The channel's word, given {at}; of the send itself the record holds nothing."
    whom = "a recipient since erased" if sent.recipient == ERASED else sent.recipient
    answer = sent.answer or "its words were erased"
    return (
        f"The word of the server that took the message {sent.message_id} over for {whom} by {sent.channel}, given "
        f"{moment(sent.settled_at or sent.begun_at)}: {answer}. By accepting it, that server took on to deliver "
        "it or to report that it could not. It does not prove that it was read."
    )


def _last_statement(links: Sequence[Link]) -> str | None:
    of_operators = (link.entry.detail or "" for link in reversed(links) if link.entry.step is Step.OPERATOR)
    return next((detail for detail in of_operators if detail.startswith("stated as delivered")), None)


def _digest(document: Mapping[str, Any]) -> str:
    content = {name: value for name, value in document.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- verifying it ----------------------------------------------------------------------------------------------------


def digest_of(text: str) -> str:
    """Return the digest that an evidence document carries; raises `NotEvidence`."""
    return str(_read(text).get("digest"))


def verify(text: str) -> tuple[Finding, ...]:
    """Compute everything anew and say what holds and what does not; raises `NotEvidence`."""
    document = _read(text)
    lines = _objects(document, "history")
    findings = [_whole(document), *_lines(_object(document, "delivery").get("id"), lines)]
    findings += _end(_object(document, "chain").get("last"), lines)
    findings += _sends(_objects(document, "sends"), lines)
    return tuple(findings)


def _whole(document: Mapping[str, Any]) -> Finding:
    if document.get("digest") == _digest(document):
        return Finding(holds=True, words=f"The file is as it was written. Its digest is {document['digest']}.")
    return Finding(holds=False, words="The file was altered since it was written: its digest does not fit.")


def _lines(delivery_id: object, lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    previous, chained, erased = delivery_id, 0, 0
    for place, line in enumerate(lines, 1):
        if line.get("hash") is None and not chained:
            continue
        chained += 1
        erased += line.get("detail_hash") is not None and line.get("detail") is None
        for wrong in _wrong(line, previous):
            yield Finding(holds=False, words=f"Line {place} ({_named(line)}): {wrong}.")
        previous = line.get("hash")
    if early := len(lines) - chained:
        words = f"{_count(early)} without a hash, of an earlier version: for what it says stands the digest alone."
        yield Finding(holds=True, words=words)
    yield Finding(holds=True, words=f"{_count(chained)} of the history looked at by the hashes.")
    if erased:
        yield Finding(holds=True, words=f"The words of {_count(erased)} were erased; their hashes stand.")


def _wrong(line: Mapping[str, Any], previous: object) -> Iterator[str]:
    """Say what does not fit in a line of the chain; what follows from a wrong line alone is not held against others."""
    salt, detail, words = line.get("salt"), line.get("detail"), line.get("detail_hash")
    if detail is not None and words != detail_hash(str(salt), str(detail)):
        yield "its words were altered"
    if line.get("previous") != previous:
        yield "it does not follow the line before it: a line was taken out, put in or moved here, or that one altered"
    fields = Fields(**{name: line.get(name) for name in ("at", "step", "result", "channel", "message_id")})  # type: ignore[arg-type]
    if line.get("hash") != line_hash(str(line.get("previous")), fields, words):
        yield "it was altered: its hash does not fit"


def _end(last: object, lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    found = lines[-1].get("hash") if lines else None
    if last == found:
        yield Finding(holds=True, words="The history ends where the delivery's own row says that it does.")
    else:
        yield Finding(
            holds=False, words="The history does not end as recorded: lines at its end were taken out or put in."
        )


def _sends(sends: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    told = {(line.get("message_id"), line.get("result")) for line in lines if line.get("step") == Step.DELIVER}
    for send in sends:
        accepted = send.get("outcome") == Settled.ACCEPTED and send.get("proof") != Proof.PERSON
        if accepted and (send.get("message_id"), "accepted") not in told:
            words = f"The message {send.get('message_id')} is said to be accepted, and the history has no line of it."
            yield Finding(holds=False, words=words)


def _named(line: Mapping[str, Any]) -> str:
    return " ".join(str(line.get(name)) for name in ("at", "step", "result"))


def _count(number: int) -> str:
    return "1 line" if number == 1 else f"{number} lines"


def _read(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text, object_pairs_hook=_once)
        json.dumps(document, ensure_ascii=False).encode()  # half a character has no bytes to hash
    except (ValueError, RecursionError) as exc:
        raise NotEvidence(f"this cannot be read as JSON: {exc}") from exc
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise NotEvidence(f"this is no {FORMAT}")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two with one name a reader sees one and the digest the other.
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise NotEvidence(f"its `{name}` is missing or no object")
    return value


def _objects(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise NotEvidence(f"its `{name}` is missing or no list of objects")
    return value
