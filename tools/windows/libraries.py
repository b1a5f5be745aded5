"""The DLLs that tests load: the stand-in that keeps Wintun's contract, the fake IP Helper, and the official wintun.dll.

The official DLL comes unmodified in a wheel on PyPI and stays in the cache: its license permits distribution only with
software that uses it through its header alone. The benchmarks measure the rest of that wheel beside threepipe.
"""

import os
import sys
from pathlib import Path

from cache import Cache, run
from installation import locked_packages
from wine import ROOT, windows_path

__all__ = ["library_settings"]

LIBRARIES = {"THREEPIPE_CONTRACT": "contract_dll", "THREEPIPE_FAKE_IPHELPER": "fake_iphelper"}
"""The environment variable by which tests find each, and the folder of its sources in tests/support/."""


def library_settings(cache: Cache) -> dict[str, str]:
    """Return the variables that the environment does not set already. Raises `SetupFailed`."""
    peer = cache.part("peer", *locked_packages("peer"))
    official = peer / "pytun_pmd3" / "wintun" / "bin" / "amd64" / "wintun.dll"
    settings = {name: windows_path(_built(cache, folder)) for name, folder in LIBRARIES.items()}
    settings |= {"THREEPIPE_PEER": windows_path(peer), "THREEPIPE_OFFICIAL": windows_path(official)}
    return {name: value for name, value in settings.items() if name not in os.environ}


def _built(cache: Cache, name: str) -> Path:
    sources = ROOT / "tests" / "support" / name
    recipe = "".join(path.read_text() for path in sorted(sources.glob("*.*")) if path.suffix in (".c", ".h", ".py"))

    def make(folder: Path) -> None:
        run([sys.executable, sources / "build.py", "windows", folder], f"building {name}")

    (library,) = cache.part(name, recipe, make).rglob("*.dll")
    return library
