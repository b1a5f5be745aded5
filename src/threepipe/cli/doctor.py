"""`threepipe doctor`: prints the findings of the platform's `probe` about this machine, with advice."""

from typing import Annotated

import typer

from threepipe.backend import Finding
from threepipe.cli.output import print_json, print_table
from threepipe.core import fast

__all__ = ["doctor"]


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """Check if adapters can be created here, and what else this machine offers.

    It tries with your privileges and removes what it created. The exit
    status is 0 if you can create adapters, else 1. What works only in a
    user namespace says no.

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
        rows = [(finding.name, "yes" if finding.ok else "no", finding.detail, finding.advice) for finding in findings]
        print_table(("check", "ok", "finding", "advice"), rows, yes="green", no="red")
    if not possible:
        raise typer.Exit(1)


def _native_core() -> Finding:
    name = "native core"
    if fast.NATIVE:
        return Finding(name, True, "in use: it does the work per packet")
    return Finding(
        name,
        False,
        f"not in use, Python does the work per packet: {fast.REASON}",
        "optional, faster: install a wheel for this system, or with a Rust compiler the source archive",
    )
