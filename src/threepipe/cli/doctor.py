"""`threepipe doctor`: what this machine offers, and what to do about what it lacks.

Prints what the platform's `probe` found out; the finding out is not done here.
"""

from typing import Annotated

import typer

from threepipe.backend import Finding
from threepipe.cli.output import print_json, print_table
from threepipe.core import fast

__all__ = ["doctor"]


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """See whether adapters can be made here, and what else there is.

    It tries, as the user who runs it, and leaves nothing behind. The exit
    status is 0 where adapters can be made, and 1 where they cannot.

    Examples:
      threepipe doctor
      sudo threepipe doctor --json
    """
    from threepipe import platforms

    findings = [*platforms.probe(), _native_core()]
    possible = all(finding.ok for finding in findings if finding.essential)
    if json:
        print_json({"adapters_possible": possible, "findings": findings})
    else:
        rows = [(found.name, "yes" if found.ok else "no", found.detail, found.advice) for found in findings]
        print_table(("what", "ok", "what was seen", "what to do"), rows, yes="green", no="red")
    if not possible:
        raise typer.Exit(1)


def _native_core() -> Finding:
    name = "native core"
    if fast.NATIVE:
        return Finding(name, True, "in use: threepipe-native does the work of every packet")
    return Finding(
        name,
        False,
        f"not in use, Python does it: {fast.REASON}",
        "optional, and faster: pip install ./native in a clone",
    )
