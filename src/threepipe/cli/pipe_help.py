"""The help of `threepipe pipe`, made from the tables of kinds and impairments."""

from textwrap import wrap

from threepipe.endpoints.kinds import KINDS
from threepipe.filters.impairment import SETTINGS

__all__ = ["pipe_help"]

_WIDTH = 76

_BEGINNING = """\
Join two places that IP packets come from or go to, until one ends.

An address is KIND[:PLACE][,option[=value]]..., as with socat; what stands
in quotes, or behind a backslash, is taken literally. Listeners bind the
loopback address where no host is named.

Examples:
  threepipe pipe tun:tp0,address=10.6.7.7/24 udp:vpn.example.org:4242
  threepipe pipe tun:tp0,address=10.6.7.7/24 \\
    'exec:ssh host threepipe pipe tun:tp0,address=10.6.7.8/24 -'
  threepipe pipe tun:a,netns=one tun:b,netns=two --impair delay=20ms,loss=1%

Kinds, and the options of their addresses:
"""


def pipe_help() -> str:
    """Lines of at most 76 columns."""
    lines = [_BEGINNING]
    for kind in KINDS.values():
        lines += _entry(f"  {kind.written}", kind.help)
        for option in kind.options:
            lines += _entry(f"    ,{option.written}", option.help + (" (repeatable)" if option.repeatable else ""))
    lines.append("\nWhat --impair takes, separated by commas:\n")
    for setting in SETTINGS.values():
        lines += _entry(f"  {setting.name}={setting.value}", setting.help)
    return "\n".join(lines)


def _entry(name: str, text: str) -> list[str]:
    """`name`, and `text` beside it where there is room for some, else below."""
    indent = " " * 30
    if len(name) < len(indent) - 1:
        return wrap(text, _WIDTH, initial_indent=name.ljust(len(indent)), subsequent_indent=indent)
    return [name, *wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)]
