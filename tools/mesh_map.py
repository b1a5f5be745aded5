"""The map of a mesh as an SVG: its nodes on a circle, their links, and the way between two of them."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Link", "Map", "picture"]

_SIZE, _TOP, _RADIUS, _DOT = 560, 96, 190, 21
_COLOURS = {"alive": "#3d7a46", "silent": "#b8b2a4", "cut": "#c0392b", "way": "#1f6fb2"}
_WORDS = {
    "alive": "keys of a handshake",
    "silent": "no keys",
    "cut": "the cable that is cut",
    "way": "the way of the probes",
}


class Link(NamedTuple):
    """Two nodes that are joined by a cable, and the state of their link: `alive`, `silent` or `cut`."""

    one: str
    other: str
    state: str


class Map(NamedTuple):
    """The mesh at one moment."""

    title: str
    text: str
    nodes: Sequence[str]
    links: Sequence[Link]
    way: Sequence[str]
    """The names of the nodes on the way of a packet."""


def picture(maps: Sequence[Map], title: str) -> str:
    """Return the maps side by side, with a legend."""
    width, height = _SIZE * len(maps), _SIZE + _TOP + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fbfaf6"/>',
    ]
    for number, each in enumerate(maps):
        lines += [f'<g transform="translate({number * _SIZE} 0)">', *_drawn(each), "</g>"]
    lines += [*_legend(width, height), "</svg>"]
    return "\n".join(lines) + "\n"


def _drawn(each: Map) -> list[str]:
    places = {
        name: (
            _SIZE / 2 + _RADIUS * math.sin(2 * math.pi * number / len(each.nodes)),
            _TOP + _SIZE / 2 - 40 - _RADIUS * math.cos(2 * math.pi * number / len(each.nodes)),
        )
        for number, name in enumerate(each.nodes)
    }
    lines = [
        f'<text x="{_SIZE / 2}" y="40" font-size="20" font-weight="bold">{escape(each.title)}</text>',
        f'<text x="{_SIZE / 2}" y="66" font-size="15">{escape(each.text)}</text>',
    ]
    for one, other, state in each.links:
        dashes = ' stroke-dasharray="7 6"' if state != "alive" else ""
        lines.append(_line(places[one], places[other], _COLOURS[state], 2.5, dashes))
    for one, other in zip(each.way, each.way[1:], strict=False):
        lines.append(_line(places[one], places[other], _COLOURS["way"], 7, ' stroke-opacity="0.6"'))
    for name, (x, y) in places.items():
        colour = _COLOURS["way"] if name in each.way else "#444"
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}" fill="#fff" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{x:.1f}" y="{y + 5:.1f}" font-size="14">{escape(name)}</text>')
    return lines


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, width: float, more: str) -> str:
    (x1, y1), (x2, y2) = start, end
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {where} stroke="{colour}" stroke-width="{width}"{more}/>'


def _legend(width: int, height: int) -> list[str]:
    lines, step = [], width / len(_WORDS)
    for number, (state, words) in enumerate(_WORDS.items()):
        x, y = number * step + step / 2, height - 22
        lines.append(_line((x - 110, y - 5), (x - 75, y - 5), _COLOURS[state], 5, ""))
        lines.append(f'<text x="{x - 65}" y="{y}" font-size="14" text-anchor="start">{words}</text>')
    return lines
