"""The official DLL on this binding, where there is no driver: what it exports, says and refuses.

THREEPIPE_OFFICIAL names it. Wine can load it and cannot run its driver, which is what these look at; on a Windows
with a driver there is nothing to be refused for.
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
    pytest.mark.skipif(not _under_wine(), reason="takes a system that loads the DLL and runs no driver, as Wine does"),
]

FOLDER = Path("threepipe", "driver", "amd64")


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """The user's folder for data, with the DLL where `threepipe driver install` puts it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # It stays loaded.
        folder = Path(name) / FOLDER
        folder.mkdir(parents=True)
        shutil.copy(GIVEN, folder / DLL_NAME)
        yield Path(name)


@pytest.fixture
def wintun(data: Path) -> Iterator[Wintun]:
    """Nobody has named it to this process, so it is loaded for its hash."""
    wintun = Wintun(load_library(data / FOLDER / DLL_NAME))
    yield wintun
    wintun.silence()


def test_it_is_the_pinned_release() -> None:
    assert RELEASE.dll_hashes["amd64"] == "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce"
    RELEASE.check(Path(GIVEN).read_bytes(), "amd64", GIVEN)


def test_it_has_all_functions_that_are_bound(data: Path) -> None:
    library = load_library(data / FOLDER / DLL_NAME)
    assert len(FUNCTIONS) == 14
    assert [name for name in FUNCTIONS if not hasattr(library, name)] == []


def test_no_driver_runs(wintun: Wintun) -> None:
    assert wintun.running_driver_version() is None


@pytest.mark.parametrize("call", ["create_adapter", "open_adapter"])
def test_a_refusal_is_our_error_with_the_lines_and_the_code_of_the_dll(
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
    assert all(line in logged for line in said)  # In that order; a thread of the DLL's may have logged more since.
    assert int(said[-1].rpartition("(Code ")[2].rstrip(")"), 16) == (error_code(caught.value) or 0)
    assert {record.levelno for record in caplog.records} <= {logging.INFO, logging.WARNING, logging.ERROR}
    assert all(abs(record.created - time.time()) < 60 for record in caplog.records)


def test_a_program_that_wants_an_adapter_is_told(data: Path) -> None:
    done = run("pipe", "tun:tp0", "discard", LOCALAPPDATA=str(data))
    assert done.status == 1
    # Not always the last line: the DLL clears up in a thread of its own, and logs that this failed when it does.
    [complaint] = [line for line in done.complaint.splitlines() if line.startswith("threepipe: tp0: ")]
    assert "; Wintun's log: Failed to " in complaint


def test_the_doctor_knows_it_and_asks_it_for_the_driver(data: Path) -> None:
    done = run("doctor", "--json", LOCALAPPDATA=str(data))
    found = {finding["name"]: finding for finding in json.loads(done.printed)["findings"]}
    assert (done.status, found["wintun.dll"]["ok"]) == (0, True)
    assert f"Wintun {RELEASE.version} (SHA-256 {RELEASE.dll_hashes['amd64']})" in found["wintun.dll"]["detail"]
    assert found["driver"]["detail"].startswith("none runs")


def test_the_command_shows_its_version_and_that_no_driver_runs(data: Path) -> None:
    done = run("driver", "version", "--json", LOCALAPPDATA=str(data))
    found = json.loads(done.printed)
    assert found.pop("path").endswith(DLL_NAME)
    assert found == {"sha256": RELEASE.dll_hashes["amd64"], "version": RELEASE.version, "running": None}
