"""What `Retry-After` says, for all channels that speak HTTP."""

from datetime import UTC, datetime

_LONGEST = 86400.0  # seconds; who names more is asked again after a day


def wait(text: str | None, now: datetime) -> float | None:
    """Return what the header says, in seconds from now: a number of them, or a date; None for what is neither."""
    text = (text or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _LONGEST)
    try:
        until = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return min(max(0.0, (until - now).total_seconds()), _LONGEST)
