"""The parts of the site's live page that are not in docs/: Pyodide, which is Python for a browser, and threepipe.

Pyodide is fetched once, by npm, and kept in build/. It must have the hash below, which npm shows:
npm view pyodide@VERSION dist.integrity
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

__all__ = ["add_parts"]

ROOT = Path(__file__).resolve().parent.parent
VERSION = "314.0.7"
SHA512 = "0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
ARCHIVE = ROOT / "build" / f"pyodide-{VERSION}.tgz"
FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")


def add_parts(folder: Path, fetch: bool = True) -> set[Path]:
    """Write the parts into `folder` unless they are there, and return their paths.

    Without `fetch`, Pyodide is left out if npm would have to fetch it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / "pyodide" / name for name in FILES}
    if not all(path.exists() for path in paths) and (fetch or ARCHIVE.exists()):
        _unpack(_archive(), folder / "pyodide")
    library = folder / "threepipe.zip"
    _write_library(library)
    return paths | {library}


def _archive() -> Path:
    """Return the checked archive; fetch it if it is not there."""
    if not ARCHIVE.exists():
        if not (npm := shutil.which("npm")):
            raise SystemExit("the live page needs Pyodide, which npm fetches; run (Debian): apt-get install npm")
        ARCHIVE.parent.mkdir(exist_ok=True)
        command = [npm, "pack", "--silent", f"pyodide@{VERSION}", "--pack-destination", str(ARCHIVE.parent)]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(f"npm could not fetch pyodide {VERSION}; look at its message above")
    digest = base64.b64encode(hashlib.sha512(ARCHIVE.read_bytes()).digest()).decode()
    if digest != SHA512:
        ARCHIVE.unlink()
        raise SystemExit(f"{ARCHIVE.name} has the wrong SHA-512, {digest}, and was removed; run this again")
    return ARCHIVE


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as packed:
        for name in FILES:
            file = packed.extractfile(f"package/{name}")
            assert file is not None
            (folder / name).write_bytes(file.read())


def _write_library(target: Path) -> None:
    """Write the library's text as an archive; the same text gives the same bytes."""
    source = ROOT / "src"
    made = target.with_suffix(".new")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as library:
        for path in sorted((source / "threepipe").rglob("*.py")):
            library.writestr(zipfile.ZipInfo(path.relative_to(source).as_posix()), path.read_bytes())
    if target.exists() and target.read_bytes() == made.read_bytes():
        made.unlink()
    else:
        made.replace(target)
