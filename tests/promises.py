"""What is promised of every delivery (design.md, "Invariants"), checked against what the outside world saw."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes

from service.delivery import NOTICE_ROUND, Delivery, Kind, Outcome, Purpose, Send, Settled
from service.simulator.collecting import CaptureSeen
from service.simulator.documents import Json, collection_begun
from service.simulator.mail import Mail

IDEMPOTENT = frozenset({"http"})
"""The channels whose other side takes the same message once."""
DENIED = "stated as not delivered"
"""The answer of a send in doubt of which a person said that it did not arrive; that it was in doubt stays true."""


@dataclass(slots=True, kw_only=True)
class Witness:
    """What mail server and provider saw take effect, in its order, and what operators had done on purpose."""

    seen: list[tuple[str, str]] = field(default_factory=list)  # ("mail", Message-ID) and ("capture", transaction's id)
    stated: set[str] = field(default_factory=set)  # transactions that somebody said were delivered
    asked: Counter[str] = field(default_factory=Counter)  # how often somebody had one sent once more

    def mail(self, mail: Mail) -> None:
        self.seen.append(("mail", str(message_from_bytes(mail.content)["Message-ID"])))

    def took(self, message_id: str) -> None:
        """Note a message of another channel than mail, by the name that the record knows it by."""
        self.seen.append(("mail", message_id))

    def capture(self, capture: CaptureSeen) -> None:
        self.seen.append(("capture", capture.transaction_id))


def check(
    witness: Witness,
    deliveries: Sequence[Delivery],
    sends: Mapping[str, Sequence[Send]],
    transactions: Mapping[str, Json],
    *,
    after_delivery: bool,
    on_invoice: Mapping[str, frozenset[str]] | None = None,
) -> None:
    """Raise `AssertionError` for the first promise that is broken; nothing may be under way any more.

    `on_invoice` are the transactions on each consolidated invoice: its mail is the mail of all of them.
    """
    for delivery in deliveries:
        assert delivery.outcome is not Outcome.OPEN, f"not settled: {delivery}"
        assert delivery.outcome is Outcome.COMPLETED or delivery.reason, f"closed without a reason: {delivery}"
        _sent_as_recorded(witness, delivery, sends[delivery.id])
        if delivery.outcome is Outcome.COMPLETED and delivery.kind is not Kind.GROUPED:
            assert set(delivery.progress) == {"delivered", "captured"}, delivery
            transaction = transactions[delivery.transaction_id]
            assert collection_begun(transaction) or transaction["status"] == "AUTHORIZATION_VOIDED", delivery
    captured = Counter(id_ for kind, id_ in witness.seen if kind == "capture")
    assert max(captured.values(), default=0) <= 1, f"captured twice: {captured.most_common(3)}"
    about = {d.id: frozenset({d.transaction_id}) for d in deliveries} | dict(on_invoice or {})
    # Who states it of one purchase states it of the invoice, and so of all that are on it.
    witness.stated |= {id_ for together in about.values() if together & witness.stated for id_ in together}
    of_mail = {send.message_id: about[i] for i, found in sends.items() for send in found}
    notices = {send.message_id for found in sends.values() for send in found if send.round < 0}
    _in_order(witness, of_mail, notices, after_delivery=after_delivery)


def _sent_as_recorded(witness: Witness, delivery: Delivery, sends: Sequence[Send]) -> None:
    assert not any(send.outcome is Settled.OPEN for send in sends), f"left open: {sends}"
    arrived = Counter(id_ for kind, id_ in witness.seen if kind == "mail")
    for message_id in {send.message_id for send in sends}:
        of_it = [send for send in sends if send.message_id == message_id]
        accepted = [send for send in of_it if send.outcome is Settled.ACCEPTED]
        in_doubt = sum(send.outcome is Settled.UNCONFIRMED or send.answer == DENIED for send in of_it)
        # One that was in doubt may have been repeated before it became known that it was accepted.
        repeats = all(send.purpose is Purpose.REPEAT for send in accepted[1:])
        assert repeats, f"accepted twice: {of_it}"
        copies = arrived[message_id]
        known = len(accepted)
        bounced = sum(send.outcome is Settled.BOUNCED for send in of_it)  # or never arrived at all
        at_least = min(known, 1) if of_it[0].channel in IDEMPOTENT else known
        assert at_least <= copies <= known + bounced + in_doubt, f"{copies} arrived, and the record says: {of_it}"
        assert copies <= 1 or of_it[0].channel not in IDEMPOTENT, f"taken twice: {of_it}"
    told = [send for send in sends if send.round == NOTICE_ROUND]
    perhaps = [send for send in told if send.outcome is not Settled.REFUSED]
    assert len(perhaps) <= 1, f"told of a purchase again: {told}"
    rounds = {send.round for send in sends if send.round >= 0}
    for round_ in rounds:
        _one_is_enough([send for send in sends if send.round == round_])
    assert len(rounds) <= 1 + witness.asked[delivery.transaction_id], f"sent in {rounds}, and nobody asked: {delivery}"


def _one_is_enough(of_round: Sequence[Send]) -> None:
    """Nothing is begun after one of the round was accepted; when one counts by a report alone, nobody knows."""
    for accepted in of_round:
        told = accepted.outcome is Settled.ACCEPTED and accepted.reported_at is None
        after = [send for send in of_round if told and accepted.settled_at and send.begun_at > accepted.settled_at]
        assert not after, f"begun after {accepted} was accepted: {after}"


def _in_order(
    witness: Witness, of_mail: Mapping[str, frozenset[str]], notices: set[str], *, after_delivery: bool
) -> None:
    sent: set[str] = set()
    captured: set[str] = set()
    for kind, id_ in witness.seen:
        if kind == "mail":
            assert id_ in of_mail, f"a mail that the record does not know: {id_}"
            if id_ not in notices:  # which deliver no invoice
                sent |= of_mail[id_]
        else:
            captured.add(id_)
            in_time = not after_delivery or id_ in sent | witness.stated
            assert in_time, f"{id_} was captured before anybody had it"
