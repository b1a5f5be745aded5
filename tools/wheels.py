"""Build the wheels into dist/, each with its bill of materials (CycloneDX) in the folder that PEP 770 gives it.

    make wheels
    python tools/wheels.py --pure FOLDER     (without the native core)

That of the pure wheel lists the packages of locks/run.txt, with which the release was tested: an installation may have
others. maturin writes that of the native core, with the crates of Cargo.lock that are compiled into it or build it.
"""

import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from build_native import CRATE, build_settings, obstacle

ROOT = CRATE.parent


def main(arguments: list[str]) -> None:
    pure = arguments[:1] == ["--pure"]
    target = Path(arguments[pure] if len(arguments) > pure else ROOT / "dist")
    with tempfile.TemporaryDirectory() as folder:
        bill = Path(folder, "threepipe.cdx.json")
        write_bill(bill)
        build(ROOT, target, THREEPIPE_SBOM=str(bill))
    if pure:
        return
    if reason := obstacle():
        print(f"There is no wheel of the native core: {reason}.")
    else:
        build(CRATE, target)
    print(*sorted(target.glob("*.whl")), sep="\n")


def write_bill(target: Path) -> None:
    """Write the bill of materials of the pure wheel."""
    # Without -W it warns that there is no tree of dependencies, which a lock file does not have.
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    files = ["--pyproject", "pyproject.toml", "--output-file", str(target), "locks/run.txt"]
    subprocess.run([*command, "--mc-type", "library", *files], cwd=ROOT, check=True)
    bill = json.loads(target.read_text())
    for component in bill["components"]:
        del component["description"]  # The line of the file, with all hashes again.
    version = runpy.run_path(str(ROOT / "src" / "threepipe" / "_version.py"))["__version__"]
    bill["metadata"]["component"]["version"] = version
    target.write_text(json.dumps(bill, indent=1, sort_keys=True))


def build(project: Path, target: Path, **environment: str) -> None:
    """Build one wheel with the locked tools of this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), str(project)]
    if subprocess.run(command, env=build_settings() | environment).returncode:
        sys.exit(f"The wheel of {project} was not built.")


if __name__ == "__main__":
    main(sys.argv[1:])
