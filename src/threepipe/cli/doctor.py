"""`threepipe doctor`: prints the findings of the platform's `probe` about this machine, with advice."""

from typing import Annotated

import typer

from threepipe._version import __version__
from threepipe.backend import Finding
from threepipe.cli.output import print_json, print_table
from threepipe.core import fast

__all__ = ["doctor"]

_LIBRARIES = {
    "cryptography": "wireguard",
    "prometheus_client": "metrics",
    "pyroute2": "",
    "rich": "",
    "segno": "qr",
    "typer": "",
}
"""The libraries whose versions are named, and the extras that bring the optional ones."""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """Check if adapters can be created here, and what else this machine offers.

    It tries with your privileges and removes everything that it created. The
    exit status is 0 if you can create adapters, else 1. A check says no if it
    succeeds only in a user namespace, and optional if adapters do without.

    Examples:
      threepipe doctor
      sudo threepipe doctor --json
    """
    from threepipe import platforms

    findings = [*_versions(), *platforms.probe(), _native_core()]
    possible = all(finding.ok for finding in findings if finding.essential)
    if json:
        print_json({"adapters_possible": possible, "findings": findings})
    else:
        rows = [(finding.name, _verdict(finding), finding.detail, finding.advice) for finding in findings]
        print_table(("check", "ok", "finding", "advice"), rows, yes="green", no="red")
    if not possible:
        raise typer.Exit(1)


def _verdict(finding: Finding) -> str:
    return "yes" if finding.ok else "no" if finding.essential else "optional"


def _versions() -> list[Finding]:
    """Return the versions of threepipe, Python and the libraries, and those that are missing."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], {}
    for library, extra in _LIBRARIES.items():
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            if extra:
                missing[library] = extra
    lacks = f"; without {', '.join(missing)}" if missing else ""
    advice = f'optional: pip install "threepipe[{",".join(missing.values())}]"' if missing else ""
    return [
        Finding("threepipe", True, __version__),
        Finding("Python", True, f"{platform.python_implementation()} {platform.python_version()}"),
        Finding("libraries", not missing, ", ".join(found) + lacks, advice),
    ]


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
