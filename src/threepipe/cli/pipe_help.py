"""The help text of `threepipe pipe`, made from the tables of kinds and impairments."""

from textwrap import wrap

from threepipe.endpoints.kinds import KINDS, Option
from threepipe.filters.impairment import SETTINGS

__all__ = ["pipe_help"]

_WIDTH = 76

_INTRODUCTION = """\
Move IP packets between two endpoints, both ways, until one of them ends.

An address is KIND[:PARAMETER][,option[=value]]..., as in socat. Quotes and
backslashes make characters literal. A listener without a host binds the
loopback address.

Examples:
  threepipe pipe tun:tp0,address=10.6.7.7/24 udp:vpn.example.org:4242
  threepipe pipe tun:tp0,address=10.6.7.7/24 \\
    'exec:ssh host threepipe pipe tun:tp0,address=10.6.7.8/24 -'
  threepipe pipe tun:a,netns=one tun:b,netns=two --impair delay=20ms,loss=1%

Kinds, and the options of their addresses:
"""


def pipe_help() -> str:
    """Return the help text, in lines of at most 76 columns."""
    lines = [_INTRODUCTION]
    for kind in KINDS.values():
        lines += _entry(f"  {kind.usage}", kind.help)
        for option in kind.options:
            lines += _entry(f"    ,{option.usage}", option.help + _note(option))
    lines.append("\nSettings of --impair, separated by commas:\n")
    for setting in SETTINGS.values():
        lines += _entry(f"  {setting.name}={setting.example}", setting.help)
    return "\n".join(lines)


def _note(option: Option) -> str:
    return " (repeatable)" if option.repeatable else " (required)" if option.required else ""


def _entry(name: str, text: str) -> list[str]:
    """Return the lines of an entry: `text` beside `name`, or below a long one."""
    indent = " " * 30
    if len(name) < len(indent) - 1:
        return _wrapped(text, name.ljust(len(indent)), indent)
    return [name, *_wrapped(text, indent, indent)]


def _wrapped(text: str, first_indent: str, indent: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent=first_indent, subsequent_indent=indent, break_on_hyphens=False)
