"""Colours that can be read: a brand's colour as ground, as text on white and as text on the dark card."""

import colorsys

DARK_CARD = "#1b1e22"  # as in templates/mail/base.html
_ENOUGH = 4.5  # WCAG AA
_MORE = 7.0  # thin type on a dark ground
_VISIBLE = 1.5


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    """Return the relative luminance of `#rrggbb`, 0 to 1 (WCAG 2.2)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(color)]  # noqa: PLR2004
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _readable(color: str, ground: str, ratio: float) -> str:
    """Return `color` with its own hue, as much darker or lighter as it takes to be read on `ground`."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(c / 255 for c in _channels(color)))
    end = 0.0 if _luminance(ground) > 0.5 else 1.0  # noqa: PLR2004
    for step in range(51):
        rgb = colorsys.hls_to_rgb(hue, lightness + (end - lightness) * step / 50, saturation)
        shade = "#" + "".join(f"{round(c * 255):02x}" for c in rgb)
        if contrast(shade, ground) >= ratio:
            break
    return shade


def on_color(color: str) -> str:
    """Return black or white, whichever can be read on `color`; one of them always can."""
    return "#ffffff" if contrast(color, "#ffffff") >= _ENOUGH else "#000000"


def ink(color: str) -> str:
    """Return `color` as text on white."""
    return _readable(color, "#ffffff", _ENOUGH)


def ink_dark(color: str) -> str:
    """Return `color` as text on the dark card."""
    return _readable(color, DARK_CARD, _MORE)


def edge(color: str) -> str:
    """Return the line around an area of `color` on white: the colour itself, unless it is nearly white."""
    return color if contrast(color, "#ffffff") >= _VISIBLE else "#d5d9de"
