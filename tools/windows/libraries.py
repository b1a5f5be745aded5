"""What tests load beside Python: the library that keeps Wintun's contract, the fake IP Helper, the official DLL.

The last is taken from a wheel of PyPI, which has it unmodified, and stays in the cache: it is nobody's to give away
but with what uses it by its header alone. The rest of that wheel is what the benchmarks measure beside.
"""

import os
import sys
from pathlib import Path

from cache import Cache, run
from installation import fetched_by_pip
from wine import ROOT, windows_path

__all__ = ["library_settings"]

PEER = "pytun-pmd3==3.0.3"
"""A package that brings the official DLL; tests hold that to the release's hash."""

LIBRARIES = {"THREEPIPE_CONTRACT": "contract_dll", "THREEPIPE_FAKE_IPHELPER": "fake_iphelper"}
"""The variable of the environment by which tests find each, and the folder of its sources in tests/support/."""


def library_settings(cache: Cache) -> dict[str, str]:
    """The variables for those that the environment does not name already. Raises `CannotSetUp`."""
    peer = cache.part("peer", PEER, lambda folder: fetched_by_pip(folder, PEER))
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
