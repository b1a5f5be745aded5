"""Write the tables of docs/pipe.md, from the tables by which the program parses addresses."""

import sys
from pathlib import Path

from threepipe.endpoints.kinds import KINDS
from threepipe.filters.impairment import SETTINGS

__all__ = ["with_tables"]

PAGE = Path(__file__).parent.parent / "docs" / "pipe.md"


def with_tables(page: str) -> str:
    """Return `page` with an up-to-date table between each pair of marks."""
    for name, table in (("kinds", _kinds()), ("impairments", _impairments())):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return page


def _kinds() -> str:
    lines = ["| Address | |", "|---|---|"]
    for kind in KINDS.values():
        lines.append(f"| **`{kind.usage}`** | {kind.help} |")
        for option in kind.options:
            note = "; repeatable" if option.repeatable else "; required" if option.required else ""
            lines.append(f"| `,{option.usage}` | {option.help}{note} |".replace("on|off", r"on\|off"))
    return "\n".join(lines) + "\n"


def _impairments() -> str:
    lines = ["| Setting | |", "|---|---|"]
    lines += [f"| `{item.name}={item.example}` | {item.help} |" for item in SETTINGS.values()]
    return "\n".join(lines).replace("left|right", r"left\|right") + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
    print(PAGE, file=sys.stderr)
