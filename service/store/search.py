"""Finding deliveries by what they are called, and by what the record does not hold in clear: addresses and numbers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

from sqlalchemy import BindParameter, Connection, bindparam, select, union

from service.delivery import Delivery
from service.privacy import address_key, erased_reference, number_key
from service.store.rows import DELIVERY_COLUMNS, delivery_of
from service.store.tables import EPOCH, deliveries, microseconds, sends, storable, transactions

_NEWEST = (deliveries.c.received_at.desc(), deliveries.c.id)

_FIND = (
    select(*DELIVERY_COLUMNS)
    .where(
        deliveries.c.id.in_(
            # One search of an index each; a single condition with OR would read the whole table.
            union(
                select(transactions.c.delivery_id).where(transactions.c.id == bindparam("reference")),
                *(
                    select(deliveries.c.id).where(deliveries.c[name] == bindparam("reference"))
                    for name in ("id", "transaction_id", "invoice_number", "merchant_reference")
                ),
            )
        )
    )
    .order_by(*_NEWEST)
)
_ACCOUNTS = select(transactions.c.account_id).distinct()
_SENT_TO = select(deliveries.c.id, deliveries.c.account_id, deliveries.c.send_to).where(
    deliveries.c.send_to.is_not(None)
)


def _among(name: str) -> BindParameter[str]:
    return bindparam(name, expanding=True)


_BY_KEYS = (
    select(*DELIVERY_COLUMNS)
    .where(
        deliveries.c.id.in_(
            union(
                select(deliveries.c.id).where(deliveries.c.recipient_key.in_(_among("recipients"))),
                select(sends.c.delivery_id).where(sends.c.recipient_key.in_(_among("recipients"))),
                select(deliveries.c.id).where(deliveries.c.organization_key.in_(_among("organizations"))),
                select(deliveries.c.id).where(deliveries.c.merchant_reference.in_(_among("references"))),
                select(deliveries.c.id).where(deliveries.c.id.in_(_among("ids"))),
            )
        )
    )
    .order_by(*_NEWEST)
)


def find(connection: Connection, reference: str) -> tuple[Delivery, ...]:
    reference = storable(reference)
    found = list(map(delivery_of, connection.execute(_FIND, {"reference": reference})))
    keys = _Keys.of(reference, {delivery.account_id for delivery in found} or _accounts(connection))
    known = {delivery.id for delivery in found}
    found += [one for one in _by_keys(connection, keys) if one.id not in known]
    return tuple(sorted(found, key=lambda one: (-microseconds(one.received_at - EPOCH), one.id)))


def concerning(
    connection: Connection, addresses: Sequence[str], organization_number: str | None
) -> tuple[Delivery, ...]:
    accounts = _accounts(connection)
    reached = {(account, address_key(account, address)) for account in accounts for address in addresses}
    given = connection.execute(_SENT_TO) if addresses else ()
    waiting = [row.id for row in given if (row.account_id, address_key(row.account_id, row.send_to)) in reached]
    numbers = filter(None, (number_key(account, organization_number) for account in accounts))
    keys = _Keys(recipients=[key for _, key in reached], organizations=list(numbers), ids=waiting)
    return _by_keys(connection, keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """What stands in the record for what it does not hold in clear."""

    recipients: Sequence[str] = ()
    organizations: Sequence[str] = ()
    references: Sequence[str] = ()
    ids: Sequence[str] = ()

    @classmethod
    def of(cls, reference: str, accounts: Collection[str]) -> "_Keys":
        return cls(
            recipients=[address_key(account, reference) for account in accounts],
            organizations=list(filter(None, (number_key(account, reference) for account in accounts))),
            references=[erased_reference(account, reference) for account in accounts],
        )


def _accounts(connection: Connection) -> Sequence[str]:
    # Reads all of the table, which is narrow: only a search for what is nobody's name in clear comes here.
    return connection.execute(_ACCOUNTS).scalars().all()


def _by_keys(connection: Connection, keys: _Keys) -> tuple[Delivery, ...]:
    values = {field.name: list(getattr(keys, field.name)) for field in fields(_Keys)}
    return tuple(map(delivery_of, connection.execute(_BY_KEYS, values)))
