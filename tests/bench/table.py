"""What was measured, as values, and the table that is printed of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value beside its target. `value` is a ratio unless `unit` says otherwise."""

    number: int  # of the ratio, 1 to 6
    what: str
    ours: str
    baseline: str
    value: float
    target: float
    at_least: bool = False  # else the target is the most it may be
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.at_least else self.value <= self.target


_HEAD = ("", "what", "ours", "against", "is", "target", "")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table that reads well as plain text too."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    sign = ">=" if figure.at_least else "<="
    shape = ".0f" if figure.unit else ".2f"
    return (
        str(figure.number),
        figure.what,
        figure.ours,
        figure.baseline,
        f"{figure.value:{shape}}{figure.unit}",
        f"{sign} {figure.target:{shape}}{figure.unit}",
        "" if figure.met else "missed",
    )
