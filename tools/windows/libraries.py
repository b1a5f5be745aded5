"""Builds what tests load beside Python: the library that keeps Wintun's contract, and the fake IP Helper."""

import os
import sys
from pathlib import Path

from cache import Cache, run
from wine import ROOT, windows_path

__all__ = ["library_settings"]

LIBRARIES = {"THREEPIPE_CONTRACT": "contract_dll", "THREEPIPE_FAKE_IPHELPER": "fake_iphelper"}
"""The variable of the environment by which tests find each, and the folder of its sources in tests/."""


def library_settings(cache: Cache) -> dict[str, str]:
    """The variables for those that the environment does not name already. Raises `CannotSetUp`."""
    return {name: windows_path(_built(cache, folder)) for name, folder in LIBRARIES.items() if name not in os.environ}


def _built(cache: Cache, name: str) -> Path:
    sources = ROOT / "tests" / name
    recipe = "".join(path.read_text() for path in sorted(sources.glob("*.*")) if path.suffix in (".c", ".h", ".py"))

    def make(folder: Path) -> None:
        run([sys.executable, sources / "build.py", "windows", folder], f"building {name}")

    (library,) = cache.part(name, recipe, make).rglob("*.dll")
    return library
