"""Minor units: how many decimals a currency has. A leaf of a table and two lines, so that listings need no Babel."""

from decimal import Decimal

# ISO 4217's minor units where they are not two. Customary decimals (Unicode's, Babel's) differ, and are not what a
# provider's amounts are counted in: 50000 RSD are 500.00.
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI"), 0),
    **dict.fromkeys(("VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def minor_digits(currency: str) -> int:
    """Return how many of an amount's last digits are decimals."""
    return _DIGITS.get(currency, 2)


def in_units(minor: int, currency: str) -> Decimal:
    """Return an amount of minor units in the currency's own, with all its decimals; exact, however large it is."""
    return Decimal(f"{minor}E-{minor_digits(currency)}")
