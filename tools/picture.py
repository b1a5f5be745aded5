"""Draw the pictures in docs/assets/: rabbits bring windows into tunnels, for light and dark; and a window, the sign."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOLDER", "pictures"]

FOLDER = Path(__file__).parent.parent / "docs" / "assets"
WIDTH, HEIGHT = 1200, 396
SURFACE = 185


class Palette(NamedTuple):
    """The colours of one picture, as in CSS."""

    sky: str
    horizon: str
    light: str  # The sun, or the moon.
    cloud: str
    far: str  # Hills.
    grass: str
    blade: str
    earth: str
    deep: str
    stone: str
    tunnel: str
    rim: str
    furs: tuple[tuple[str, str], ...]  # Each with its belly.
    ear: str
    line: str
    frame: str
    glass: str
    shine: str


LIGHT = Palette(
    "#cfe8f7", "#f4fbff", "#ffd86b", "#ffffff", "#b9dba6", "#8cc56d", "#6cab50", "#a9784f", "#7a5234", "#c39a72",
    "#4a3122", "#5f9a45", (("#f3ece2", "#ffffff"), ("#b98f68", "#e9d3b8"), ("#8e949c", "#d5d9de")), "#f2b5b0",
    "#4a3b33", "#3f6fb5", "#bfe3ff", "#ffffff",
)  # fmt: skip
DARK = Palette(
    "#141a33", "#2a3560", "#f4eecb", "#222b50", "#22314a", "#2f5a46", "#23463a", "#4b3729", "#2c2019", "#63493a",
    "#130e0b", "#23463a", (("#e9e2d8", "#ffffff"), ("#a07c5a", "#d8c1a4"), ("#80868f", "#c3c8ce")), "#d99a96",
    "#1b1512", "#7fa8e8", "#ffe9a8", "#fffaf0",
)  # fmt: skip

CURVES = (((330, 424), (345, 870)), ((432, 342), (445, 768)), ((530, 262), (540, 670)))
"""Three pipes, one inside of the other: where each begins, how deep its control points are, and where it ends."""


def pictures() -> dict[str, str]:
    """Return the files by their names."""
    scenes = {f"rabbits-{name}.svg": "\n".join(_picture(each)) for name, each in (("light", LIGHT), ("dark", DARK))}
    return scenes | {"window.svg": _sign(LIGHT)}


def _sign(colour: Palette) -> str:
    """Draw a window alone, the sign of the site."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -12 24 24">'
        f"{_glass(colour)}{_window(colour, 0, 0, 9, 0)}</svg>\n"
    )


def _glass(colour: Palette) -> str:
    return (
        f'<defs><linearGradient id="glass" x2="1" y2="1"><stop stop-color="{colour.shine}"/>'
        f'<stop offset=".55" stop-color="{colour.glass}"/></linearGradient></defs>'
    )


def _picture(colour: Palette) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        "<title>Rabbits bring windows into three tunnels, and out again at the other end</title>"
    )
    yield (
        f'<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="{colour.sky}"/>'
        f'<stop offset="1" stop-color="{colour.horizon}"/></linearGradient>'
        f'<linearGradient id="earth" x2="0" y2="1"><stop stop-color="{colour.earth}"/>'
        f'<stop offset="1" stop-color="{colour.deep}"/></linearGradient>'
        f'<clipPath id="card"><rect width="{WIDTH}" height="{HEIGHT}" rx="18"/></clipPath></defs>'
    )
    yield _glass(colour)
    yield '<g clip-path="url(#card)">'
    yield from _sky(colour)
    yield from _ground(colour)
    yield from _tunnels(colour)
    fur = colour.furs
    yield _rabbit(colour, 74, SURFACE + 2, fur[1], tilt=-4)
    yield _rabbit(colour, 196, SURFACE - 18, fur[0], tilt=10, size=1.04)
    yield _rabbit(colour, 432, SURFACE + 34, fur[2], tilt=6, hidden=True)
    yield _rabbit(colour, 768, SURFACE + 30, fur[0], tilt=-8, hidden=True)
    yield _rabbit(colour, 972, SURFACE - 10, fur[1], tilt=9)
    yield _rabbit(colour, 1094, SURFACE + 2, fur[2], tilt=-3, size=0.96)
    yield from _rims(colour)
    yield "</g></svg>\n"


def _sky(colour: Palette) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#sky)"/>'
    yield f'<circle cx="600" cy="66" r="34" fill="{colour.light}"/>'
    if colour is DARK:
        yield f'<circle cx="615" cy="58" r="29" fill="{colour.sky}"/>'
        for number in range(46):
            x, y = (number * number * 131 + number * 397) % WIDTH, 8 + (number * number * 29 + number * 53) % 118
            yield f'<circle cx="{x}" cy="{y}" r="{0.8 + number % 3 * 0.5:.1f}" fill="{colour.light}" opacity=".8"/>'
    for x, y, size in ((330, 60, 1.0), (842, 46, 1.25), (1120, 84, 0.8), (120, 38, 0.8)):
        yield (
            f'<g transform="translate({x} {y}) scale({size})" fill="{colour.cloud}" opacity=".9">'
            '<ellipse rx="46" ry="15"/><circle cx="-16" cy="-10" r="17"/><circle cx="12" cy="-14" r="21"/></g>'
        )
    yield (
        f'<path d="M0 {SURFACE} V148 Q180 85 380 150 T760 138 T{WIDTH} 138 V{SURFACE + 20} H0 Z" fill="{colour.far}"/>'
    )


def _ground(colour: Palette) -> Iterator[str]:
    yield f'<rect y="{SURFACE}" width="{WIDTH}" height="{HEIGHT}" fill="url(#earth)"/>'
    for number in range(44):
        x = (number * number * 173 + number * 271) % WIDTH
        y = SURFACE + 46 + (number * number * 31 + number * 67) % (HEIGHT - SURFACE - 60)
        yield (
            f'<ellipse cx="{x}" cy="{y}" rx="{4 + number % 4 * 2}" ry="{3 + number % 3}" '
            f'fill="{colour.stone}" opacity=".45"/>'
        )
    waves = "".join(f" q 20 {8 if number % 2 else 16} 40 0" for number in range(30))
    yield f'<path d="M0 {SURFACE + 10}{waves} V{SURFACE - 6} H0 Z" fill="{colour.grass}"/>'
    for number in range(75):
        x = number * 16 + (number * 7) % 9
        tall = 6 + number * 5 % 9
        yield (
            f'<path d="M{x} {SURFACE - 4} q 1 -{tall} {number % 5 - 2} -{tall + 3}" '
            f'stroke="{colour.blade}" stroke-width="2.4" fill="none" stroke-linecap="round"/>'
        )


def _tunnels(colour: Palette) -> Iterator[str]:
    for (start, depth), (control, end) in CURVES:
        begin = SURFACE + 4
        path = f"M {start} {begin} C {control} {depth}, {start + end - control} {depth}, {end} {begin}"
        yield f'<path d="{path}" fill="none" stroke="{colour.stone}" stroke-width="58" opacity=".5"/>'
        yield f'<path d="{path}" fill="none" stroke="{colour.tunnel}" stroke-width="48"/>'
    for number, places in enumerate(((0.2, 0.29, 0.38, 0.62, 0.71), (0.28, 0.5, 0.72), (0.5,))):
        for place in places:
            x, y, angle = _at(number, place)
            yield _window(colour, x, y, 15 if number else 13, angle)


def _at(number: int, place: float) -> tuple[float, float, float]:
    """Return a point of a tunnel, and its direction in degrees; `place` is 0 at its begin and 1 at its end."""
    (start, depth), (control, end) = CURVES[number]
    points = ((start, SURFACE), (control, depth), (start + end - control, depth), (end, SURFACE))
    weights = ((1 - place) ** 3, 3 * (1 - place) ** 2 * place, 3 * (1 - place) * place**2, place**3)
    x, y = (sum(weight * point[axis] for weight, point in zip(weights, points, strict=True)) for axis in (0, 1))
    slopes = (3 * (1 - place) ** 2, 6 * (1 - place) * place, 3 * place**2)
    dx, dy = (
        sum(slope * (points[step + 1][axis] - points[step][axis]) for step, slope in enumerate(slopes))
        for axis in (0, 1)
    )
    return x, y, math.degrees(math.atan2(dy, dx))


def _rims(colour: Palette) -> Iterator[str]:
    """Draw the grass in front of each hole, which hides the feet of the rabbits in it."""
    for (start, _), (_, end) in CURVES:
        for x in (start, end):
            yield (
                f'<path d="M{x - 44} {SURFACE + 6} q 44 34 88 0 q 6 12 -4 18 q -40 22 -80 0 q -10 -6 -4 -18 Z" '
                f'fill="{colour.grass}"/>'
            )
            for step in range(-34, 40, 11):
                drop = 20 - abs(step) * 0.34
                yield (
                    f'<path d="M{x + step} {SURFACE + drop + 6:.0f} q 2 -8 {step % 5 - 2} -11" stroke="{colour.rim}" '
                    'stroke-width="2.4" fill="none" stroke-linecap="round"/>'
                )


def _window(colour: Palette, x: float, y: float, size: float, angle: float) -> str:
    """Draw a window of four panes; `size` is half of its width."""
    return (
        f'<g transform="translate({x:.0f} {y:.0f}) rotate({angle:.0f})">'
        f'<rect x="-{size}" y="-{size}" width="{2 * size}" height="{2 * size}" rx="3" fill="url(#glass)" '
        f'stroke="{colour.frame}" stroke-width="{size / 4.5:.1f}"/>'
        f'<path d="M0 -{size} V{size} M-{size} 0 H{size}" stroke="{colour.frame}" stroke-width="{size / 7:.1f}"/></g>'
    )


def _rabbit(
    colour: Palette,
    x: float,
    y: float,
    fur: tuple[str, str],
    *,
    tilt: float = 0,
    size: float = 1,
    hidden: bool = False,
) -> str:
    """Draw a rabbit that stands at `x`, `y`, looks to the right and carries a window; `hidden` has no feet."""
    coat, belly = fur
    edge = f'stroke="{colour.line}" stroke-width="2" stroke-linejoin="round"'
    feet = (
        ""
        if hidden
        else f'<ellipse cx="-12" cy="-5" rx="17" ry="7" fill="{coat}" {edge} transform="rotate(-8 -12 -5)"/>'
        f'<ellipse cx="14" cy="-5" rx="17" ry="7" fill="{coat}" {edge}/>'
    )
    return (
        f'<g transform="translate({x} {y}) rotate({tilt}) scale({size})">'
        f'<circle cx="-27" cy="-24" r="10" fill="{belly}" {edge}/>'
        f'<path d="M14 -92 C 4 -120 -6 -146 4 -150 C 16 -152 22 -120 22 -94 Z" fill="{coat}" {edge} '
        'transform="rotate(-16 14 -92)"/>'
        f"{feet}"
        f'<path d="M-24 -30 C -26 -56 -12 -74 6 -74 C 24 -74 30 -52 28 -30 C 26 -8 -22 -8 -24 -30 Z" '
        f'fill="{coat}" {edge}/>'
        f'<path d="M2 -58 C 18 -66 27 -48 25 -30 C 23 -14 4 -14 0 -28 C -2 -40 -2 -54 2 -58 Z" fill="{belly}"/>'
        f'<path d="M18 -94 C 12 -124 10 -150 20 -152 C 32 -152 32 -122 28 -92 Z" fill="{coat}" {edge}/>'
        f'<path d="M20 -100 C 17 -122 16 -141 21 -143 C 27 -143 27 -120 25 -99 Z" fill="{colour.ear}"/>'
        f'<path d="M-4 -86 C -2 -106 30 -108 38 -90 C 46 -84 48 -74 40 -70 C 30 -62 2 -60 -4 -86 Z" '
        f'fill="{coat}" {edge}/>'
        f'<circle cx="26" cy="-88" r="4" fill="{colour.line}"/><circle cx="27.4" cy="-89.4" r="1.3" fill="#fff"/>'
        f'<ellipse cx="43" cy="-82" rx="3.6" ry="2.8" fill="{colour.ear}" {edge}/>'
        f'<ellipse cx="16" cy="-76" rx="6" ry="3.6" fill="{colour.ear}" opacity=".55"/>'
        f'<path d="M36 -76 l 16 -1 M35 -73 l 15 4" stroke="{colour.line}" stroke-width="1.2" fill="none"/>'
        f"{_window(colour, 46, -42, 21, -6)}"
        f"{_arm(colour, coat, 'M10 -56 C 18 -54 26 -50 31 -44')}{_arm(colour, coat, 'M12 -34 C 20 -30 26 -28 33 -30')}"
        "</g>"
    )


def _arm(colour: Palette, coat: str, path: str) -> str:
    return "".join(
        f'<path d="{path}" stroke="{paint}" stroke-width="{width}" fill="none" stroke-linecap="round"/>'
        for paint, width in ((colour.line, 13), (coat, 9))
    )


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name, file=sys.stderr)
