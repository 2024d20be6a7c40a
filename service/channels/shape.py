"""What an object must have to be a channel, told in words for who has just written one."""

import re
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Final

from service.delivery import PROVIDER_LANE, Guarantee, Pace

_HOW = "see `Channel` in service/delivery.py, and let service.channels.conformance try it"


_NAME = re.compile("[a-z0-9][a-z0-9.-]{0,39}")


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


_VALUES: Final[dict[str, tuple[Callable[[object], bool], str]]] = {
    "name": (
        lambda value: isinstance(value, str) and value != PROVIDER_LANE and _NAME.fullmatch(value) is not None,
        f"its name in the record and in addresses: a-z, 0-9, dots and dashes, and not {PROVIDER_LANE}",
    ),
    "template": (lambda value: isinstance(value, str), 'the folder of its templates, "" when it sends data'),
    "guarantee": (lambda value: isinstance(value, Guarantee), "a Guarantee: what may follow a lost answer"),
    "reports": (lambda value: isinstance(value, bool), "whether reports come in later, at /receipts/NAME"),
    "largest_document": (_is_size, "in bytes; a larger one goes as a link (0: all do), None is any size"),
    "pace": (lambda value: value is None or isinstance(value, Pace), "a Pace, or None"),
}
_CALLS: Final = {"recipient": False, "compose": False, "send": True, "check": True}  # whether it is `async def`
_NOTHING = object()


def mistakes_of(channel: object) -> tuple[str, ...]:
    """Return what keeps an object from being a channel, a line for each; nothing of its values is repeated."""
    found = []
    for name, (fits, what) in _VALUES.items():
        value = getattr(channel, name, _NOTHING)
        if value is _NOTHING:
            found.append(f"it has no `{name}` ({what})")
        elif not fits(value):
            found.append(f"its `{name}` is not what it must be ({what})")
    calls = _CALLS | ({"read_reports": True} if getattr(channel, "reports", False) is True else {})
    for name, waits in calls.items():
        method = getattr(channel, name, None)
        if not callable(method):
            found.append(f"it has no method `{name}`")
        elif iscoroutinefunction(method) is not waits:
            found.append(f"its `{name}` must{'' if waits else ' not'} be `async def`")
    return (*found[:-1], *(f"{one}; {_HOW}" for one in found[-1:]))
