"""Check the packages and crates in our lock files against the advisories of their registries.

    make audit

Needs a network, so CI does not run it. Python packages are checked by pip-audit with PyPI's advisories; crates by
cargo-deny with the RustSec database, and by the rules of native/deny.toml for licenses, duplicates and sources.

The exit status is 0 if everything was checked and nothing found, 1 if something was found, and 77 if nothing was found
but something could not be checked. The text says which: pip-audit itself ends with 0 after it could check nothing.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CLEAN, FOUND, NOT_CHECKED = 0, 1, 77

# Messages of a cargo-deny, or of the cargo that it calls, without a network.
NO_NETWORK = r"[Ff]ailed to (fetch|clone|download|get)|Could(n't| not) resolve|unable to access|network failure"


class Result(NamedTuple):
    """The result of a check: a status and a text."""

    status: int
    text: str


class Check(NamedTuple):
    """A program that checks, and the function that reads its answer."""

    title: str
    program: str
    hint: str
    """Advice for installing the program."""
    command: list[str]
    read: Callable[[subprocess.CompletedProcess[str]], Result]

    def run(self) -> Result:
        """Run the program in native/, where cargo-deny looks for its rules."""
        if not shutil.which(self.program):
            return Result(NOT_CHECKED, f"{self.program} is not installed; {self.hint}")
        return self.read(subprocess.run(self.command, cwd=ROOT / "native", capture_output=True, text=True))


def pip_audit_result(done: subprocess.CompletedProcess[str]) -> Result:
    """Read pip-audit's JSON: a package has `vulns`, or a `skip_reason` if it was not checked."""
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return Result(NOT_CHECKED, last_line(done.stderr) or f"pip-audit ended with status {done.returncode}")
    bad = [
        f"{package['name']} {package['version']}: {', '.join(found['id'] for found in package['vulns'])}"
        for package in packages
        if package.get("vulns")
    ]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if bad:
        return Result(FOUND, "; ".join(bad) + (f"; {len(skipped)} packages were not checked" if skipped else ""))
    if skipped or not packages:
        return Result(NOT_CHECKED, f"{len(skipped)} of {len(packages)} packages: {min(skipped, default='none listed')}")
    return Result(CLEAN, f"{len(packages)} packages")


def cargo_deny_result(done: subprocess.CompletedProcess[str]) -> Result:
    """Read cargo-deny's status and messages."""
    if not done.returncode:
        return Result(CLEAN, last_line(done.stdout + done.stderr))
    if line := next((line for line in done.stderr.splitlines() if re.search(NO_NETWORK, line)), ""):
        return Result(NOT_CHECKED, line)
    return Result(FOUND, f"\n{done.stdout}{done.stderr}".rstrip())


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


LOCKS = [f"--requirement={path}" for path in sorted((ROOT / "locks").glob("*.txt"))]
PIP_AUDIT = ["pip-audit", "--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
CARGO_DENY = ["cargo-deny", "--locked", "check"]
INSTALL = "run: cargo install --locked cargo-deny"

CHECKS = [
    Check("Python packages, advisories", "pip-audit", "run: make audit", [*PIP_AUDIT, *LOCKS], pip_audit_result),
    Check("crates, advisories", "cargo-deny", INSTALL, [*CARGO_DENY, "advisories"], cargo_deny_result),
    Check("crates, rules", "cargo-deny", INSTALL, [*CARGO_DENY, "licenses", "bans", "sources"], cargo_deny_result),
]
WORDS = {CLEAN: "nothing found", FOUND: "FOUND", NOT_CHECKED: "NOT CHECKED"}


def main() -> int:
    results = []
    for check in CHECKS:
        result = check.run()
        print(f"{check.title}: {WORDS[result.status]}: {result.text}", flush=True)
        results.append(result.status)
    return FOUND if FOUND in results else max(results)


if __name__ == "__main__":
    sys.exit(main())
