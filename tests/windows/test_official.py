"""The official DLL on this binding, without its driver: exports, log lines and errors.

THREEPIPE_OFFICIAL names it. Wine can load it but cannot run its driver, so every call fails as these tests expect;
on a Windows with a driver they would succeed.
"""

import ctypes
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import run
from threepipe.errors import AdapterError
from threepipe.platforms.windows.library import load_library
from threepipe.platforms.windows.release import DLL_NAME, RELEASE
from threepipe.platforms.windows.winerror import error_code
from threepipe.platforms.windows.wintun import FUNCTIONS, Wintun

GIVEN = os.environ.get("THREEPIPE_OFFICIAL", "")


def _under_wine() -> bool:
    return sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


pytestmark = [
    pytest.mark.windows,
    pytest.mark.skipif(not GIVEN, reason="THREEPIPE_OFFICIAL names no DLL; make test-windows does"),
    pytest.mark.skipif(not _under_wine(), reason="needs a system that loads the DLL and runs no driver, as Wine does"),
]

FOLDER = Path("threepipe", "driver", "amd64")


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Return the user's data folder, with the DLL where `threepipe driver install` puts it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # The DLL stays loaded.
        folder = Path(name) / FOLDER
        folder.mkdir(parents=True)
        shutil.copy(GIVEN, folder / DLL_NAME)
        yield Path(name)


@pytest.fixture
def wintun(data: Path) -> Iterator[Wintun]:
    """Load the DLL; no variable names it, so its hash decides."""
    wintun = Wintun(load_library(data / FOLDER / DLL_NAME))
    yield wintun
    wintun.silence()


def test_the_dll_has_the_pinned_hash() -> None:
    assert RELEASE.dll_hashes["amd64"] == "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce"
    RELEASE.check(Path(GIVEN).read_bytes(), "amd64", GIVEN)


def test_the_dll_exports_every_bound_function(data: Path) -> None:
    library = load_library(data / FOLDER / DLL_NAME)
    assert len(FUNCTIONS) == 14
    assert [name for name in FUNCTIONS if not hasattr(library, name)] == []


def test_running_driver_version_without_a_driver_is_none(wintun: Wintun) -> None:
    assert wintun.running_driver_version() is None


@pytest.mark.parametrize("call", ["create_adapter", "open_adapter"])
def test_a_failed_call_raises_with_code_and_log_lines_of_the_dll(
    wintun: Wintun, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: dict[str, Callable[[], int]] = {
        "create_adapter": lambda: wintun.create_adapter("tp0", "threepipe", uuid.uuid4()),
        "open_adapter": lambda: wintun.open_adapter("tp0"),
    }
    caplog.set_level(logging.INFO, "threepipe.wintun")
    with pytest.raises(AdapterError, match=r"tp0.*; Wintun's log: Failed to ") as caught:
        calls[call]()
    said = str(caught.value).partition("; Wintun's log: ")[2].split(" / ")
    logged = iter([record.getMessage() for record in caplog.records if record.levelno > logging.INFO])
    assert all(line in logged for line in said)  # In that order; a thread of the DLL may have logged more since.
    assert int(said[-1].rpartition("(Code ")[2].rstrip(")"), 16) == (error_code(caught.value) or 0)
    assert {record.levelno for record in caplog.records} <= {logging.INFO, logging.WARNING, logging.ERROR}
    assert all(abs(record.created - time.time()) < 60 for record in caplog.records)


def test_a_pipe_without_a_driver_fails_with_the_log_of_the_dll(data: Path) -> None:
    done = run("pipe", "tun:tp0", "discard", LOCALAPPDATA=str(data))
    assert done.status == 1
    # It may not be the last line: a thread of the DLL cleans up and logs its failure later.
    [complaint] = [line for line in done.complaint.splitlines() if line.startswith("threepipe: tp0: ")]
    assert "; Wintun's log: Failed to " in complaint


def test_doctor_reports_the_dll_and_no_driver(data: Path) -> None:
    done = run("doctor", "--json", LOCALAPPDATA=str(data))
    found = {finding["name"]: finding for finding in json.loads(done.printed)["findings"]}
    assert (done.status, found["wintun.dll"]["ok"]) == (0, True)
    assert f"Wintun {RELEASE.version} (SHA-256 {RELEASE.dll_hashes['amd64']})" in found["wintun.dll"]["detail"]
    assert found["driver"]["detail"].startswith("none runs")


def test_driver_version_prints_the_dll_and_no_driver(data: Path) -> None:
    done = run("driver", "version", "--json", LOCALAPPDATA=str(data))
    found = json.loads(done.printed)
    assert found.pop("path").endswith(DLL_NAME)
    assert found == {"sha256": RELEASE.dll_hashes["amd64"], "version": RELEASE.version, "running": None}
