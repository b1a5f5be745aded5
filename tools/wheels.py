"""Build the source archive and the wheels into dist/, and check them.

    make wheels
    python tools/wheels.py --pure FOLDER     (without the native core, unchecked)

There is one wheel for every system in pure Python, and one for each row of PLATFORMS with the native core; all have the
same version and the same Python files. They are packed from the source archive. cargo-zigbuild compiles for other
systems, with the headers and libraries that Zig has.

Each wheel has its bills of materials (CycloneDX) in the folder that PEP 770 gives them: of the packages of
locks/run.txt, with which the release was tested, and of the crates. An installation may have other packages. Wheels
with the core have the license texts of its crates and of Rust's library.

The exit status is 0 if everything was built, 77 if this machine could not build a platform (the text says why), and 1
if a build or a check failed.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import crates
import mach_o
from build_native import ROOT, artifacts, library, obstacle

VERSION: str = runpy.run_path(str(ROOT / "src" / "threepipe" / "_version.py"))["__version__"]
BUILT, FAILED, NOT_AVAILABLE = 0, 1, 77


class Platform(NamedTuple):
    """A platform that gets a wheel of its own."""

    tag: str
    target: str
    """The name of Rust."""
    libc: str = ""
    """The oldest glibc to run with."""
    name: str = "_native.abi3.so"
    soname: str = ""
    """The name of the C library that musl's systems give it; Zig has another."""

    @property
    def macos(self) -> str:
        """The oldest macOS to run with, as the tag says, or an empty string."""
        found = re.match(r"macosx_(\d+)_(\d+)_", self.tag)
        return ".".join(found.groups()) if found else ""


PLATFORMS = [
    Platform("manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64-unknown-linux-gnu", ".2.17"),
    Platform("manylinux_2_17_aarch64.manylinux2014_aarch64", "aarch64-unknown-linux-gnu", ".2.17"),
    Platform("musllinux_1_2_x86_64", "x86_64-unknown-linux-musl", soname="libc.musl-x86_64.so.1"),
    Platform("musllinux_1_2_aarch64", "aarch64-unknown-linux-musl", soname="libc.musl-aarch64.so.1"),
    Platform("win_amd64", "x86_64-pc-windows-gnu", name="_native.pyd"),
    Platform("macosx_10_12_x86_64", "x86_64-apple-darwin"),
    Platform("macosx_11_0_arm64", "aarch64-apple-darwin"),
]
"""The oldest macOS and glibc are those of Rust's own library."""


class NotAvailable(Exception):
    """This machine lacks something; the text says what."""


def main(arguments: Sequence[str]) -> int:
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    pure = arguments[:1] == ["--pure"]
    target = Path(arguments[pure] if len(arguments) > pure else ROOT / "dist").absolute()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not pure:
            shutil.rmtree(target, ignore_errors=True)
        hatchling(ROOT, "sdist", folder if pure else target)
        (archive,) = (folder if pure else target).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        tree = folder / archive.name.removesuffix(".tar.gz")
        bill = folder / "threepipe.cdx.json"
        write_bill(bill)
        pack(tree, target, {"bills": [str(bill)]})
        if pure:
            return BUILT
        missing = [reason for platform in PLATFORMS if (reason := built(platform, tree, target, bill))]
    status = checked(sorted(target.glob("*")))
    print("", *missing, sep="\n")
    return status or (NOT_AVAILABLE if missing else BUILT)


def write_bill(target: Path) -> None:
    """Write the bill of materials of the Python packages."""
    # -W silences a warning that a lock file has no tree of dependencies.
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    files = ["--pyproject", "pyproject.toml", "--output-file", str(target), "locks/run.txt"]
    subprocess.run([*command, "--mc-type", "library", *files], cwd=ROOT, check=True)
    bill = json.loads(target.read_text())
    for component in bill["components"]:
        del component["description"]  # The line of the file, with all hashes again.
    bill["metadata"]["component"]["version"] = VERSION
    target.write_text(json.dumps(bill, indent=1, sort_keys=True))


def built(platform: Platform, tree: Path, target: Path, bill: Path) -> str:
    """Build the wheel of a platform. Return why this machine cannot, or an empty string."""
    print(f"{platform.tag} ...", flush=True)
    try:
        made = compiled(platform)
    except NotAvailable as reason:
        return f"NOT BUILT: {platform.tag}: {reason}"
    core = library(made)
    if platform.soname:
        renamed = bill.with_name(core.name)
        output("patchelf", "--replace-needed", "libc.so", platform.soname, "--output", str(renamed), str(core))
        core = renamed
    found = crates.crates(made)
    crate_bill = bill.with_name("threepipe-native.cdx.json")
    crate_bill.write_text(crates.bill(found, VERSION))
    texts = {"LICENSES-crates.txt": crates.license_texts(found).encode(), "LICENSES-rust.html": rust_copyright()}
    for name, text in texts.items():
        (tree / name).write_bytes(text)
    plan = {"core": str(core), "platform": platform.tag, "name": platform.name}
    pack(tree, target, {**plan, "bills": [str(bill), str(crate_bill)]})
    return ""


def compiled(platform: Platform) -> list[dict[str, Any]]:
    """Compile the core for a platform and return cargo's artifacts. Raises `NotAvailable`."""
    if reason := obstacle():
        raise NotAvailable(reason)
    libraries = output("rustc", "--print=target-libdir", f"--target={platform.target}").strip()
    if not Path(libraries).is_dir():
        try:
            output("rustup", "target", "add", platform.target)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotAvailable(f"this Rust has no library for {platform.target}: {error}") from None
    flags = {}
    if platform.soname:
        # Rust would link a musl of its own into the core; a process has one already.
        flags = {"RUSTFLAGS": "-Ctarget-feature=-crt-static"}
    elif platform.macos:
        # Without a version Zig names a newer system than the tag, and without a name the path of this build.
        name = f"-Clink-arg=-Wl,-install_name,@rpath/{platform.name}"
        flags = {"MACOSX_DEPLOYMENT_TARGET": platform.macos, "RUSTFLAGS": name}
    return artifacts(["cargo-zigbuild", "zigbuild"], f"--target={platform.target}{platform.libc}", **flags)


def rust_copyright() -> bytes:
    """Return the licenses of Rust's standard library, which is linked into the core."""
    place = Path(output("rustc", "--print=sysroot").strip(), "share", "doc", "rust")
    return (place / "COPYRIGHT-library.html").read_bytes()


def pack(tree: Path, target: Path, plan: Mapping[str, object]) -> None:
    """Pack a wheel as tools/wheel_hook.py reads it from the plan."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        hatchling(tree, "wheel", target, THREEPIPE_WHEEL=file.name)


def hatchling(project: Path, kind: str, target: Path, **settings: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    if subprocess.run(command, cwd=project, env=os.environ | settings, stdout=subprocess.PIPE).returncode:
        sys.exit(f"The {kind} was not built.")


def checked(files: Sequence[Path]) -> int:
    """Check the release, as the package index and its users would."""
    wheels = [path for path in files if path.suffix == ".whl"]
    commands = [["twine", "check", "--strict", *files], ["check-wheel-contents", *wheels]]
    failed = sum(subprocess.run([*map(str, command)]).returncode for command in commands) > 0
    for wheel in wheels:
        if "linux" in wheel.name:
            # This system's libraries are not those of the platform.
            told = json.loads(output("auditwheel", "show", "--json", "--ldpaths", "/nowhere", str(wheel)))
            found = told["overall_tag"]
            print(f"auditwheel: {wheel.name} is {found}")
            failed |= f"-{found}." not in wheel.name
        elif "macosx" in wheel.name:
            oldest = mach_o.oldest_system(zipfile.ZipFile(wheel).read("threepipe/_native.abi3.so"))
            print(f"mach_o: {wheel.name} is for macOS {oldest} and newer")
            failed |= f"-macosx_{oldest.replace('.', '_')}_" not in wheel.name
    return FAILED if failed else BUILT


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
