"""`threepipe driver` and its installer: only the pinned files are unpacked, written or loaded."""

import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, run_here
from threepipe.errors import AdapterError, AdapterUnavailable, InvalidSetting, PermissionDenied
from threepipe.platforms import driver
from threepipe.platforms.windows import library, release
from threepipe.platforms.windows.release import DLL_NAME, MACHINES, Release, architecture_of
from threepipe.platforms.windows.winerror import (
    ERROR_BAD_EXE_FORMAT,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_IMAGE_HASH,
    error_code,
)

pytestmark = pytest.mark.windows

OWN = "amd64"
"""The architecture that these tests pretend this Python has."""


def dll(architecture: str, text: bytes = b"the real one") -> bytes:
    """Return the part of a DLL that names its processor."""
    machine = next(number for number, name in MACHINES.items() if name == architecture)
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<H", machine) + text


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


DLLS = {name: dll(name) for name in MACHINES.values()}
ZIP = zipped(
    {
        "wintun/LICENSE.txt": b"Read me first.\n",
        **{f"wintun/bin/{name}/{DLL_NAME}": content for name, content in DLLS.items()},
    }
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Set up a machine without a DLL, pin a release of these tests, and return the user's folder."""
    pinned = Release("9.9", "http://127.0.0.1:9/gone.zip", sha256(ZIP), {name: sha256(DLLS[name]) for name in DLLS})
    for module in (release, library):
        monkeypatch.setattr(module, "RELEASE", pinned)
        monkeypatch.setattr(module, "process_architecture", lambda: OWN)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    monkeypatch.delenv(library.VARIABLE, raising=False)
    return tmp_path / "data" / "threepipe" / "driver" / OWN


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with the zip and a DLL."""
    (tmp_path / "release.zip").write_bytes(ZIP)
    (tmp_path / "some.dll").write_bytes(DLLS[OWN])
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Serve a folder, whose file `release.zip` is the download of the release."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/release.zip"
        monkeypatch.setattr(release, "RELEASE", release.RELEASE._replace(url=url))
        yield folder
        server.shutdown()
        thread.join()


def test_install_from_a_zip_writes_the_dll_and_the_licence(files: Path, machine: Path) -> None:
    package = driver.get_package(files / "release.zip")
    assert package == driver.Package("9.9", OWN, DLLS[OWN], "Read me first.\n")
    assert not machine.exists()
    assert package.install() == machine / DLL_NAME
    assert (machine / DLL_NAME).read_bytes() == DLLS[OWN]
    assert {path.name for path in machine.iterdir()} == {DLL_NAME, "LICENSE.txt"}
    assert driver.installed_library() == (machine / DLL_NAME, sha256(DLLS[OWN]), "9.9")


def test_install_from_a_dll_writes_it(files: Path, machine: Path) -> None:
    package = driver.get_package(files / "some.dll")
    assert package.licence == ""
    package.install()
    assert [path.name for path in machine.iterdir()] == [DLL_NAME]
    assert stat.S_IMODE((machine / DLL_NAME).stat().st_mode) & 0o444 == 0o444


@pytest.mark.parametrize("architecture", MACHINES.values())
def test_install_for_another_architecture_writes_its_dll(files: Path, architecture: str) -> None:
    made = driver.get_package(files / "release.zip", architecture=architecture).install(files / "dist")
    assert made == files / "dist" / DLL_NAME
    assert architecture_of(made.read_bytes()) == architecture


def test_an_unknown_architecture_raises(files: Path) -> None:
    with pytest.raises(InvalidSetting, match="architecture 'mips': give one of amd64, arm64, x86, arm"):
        driver.get_package(files / "release.zip", architecture="mips")


def test_a_file_that_is_not_of_the_release_raises(files: Path) -> None:
    path = files / "other"
    for content, text, code in (
        (
            ZIP + b"\0",
            "was not opened: its SHA-256 is not that of the zip of Wintun 9.9",
            ERROR_INVALID_IMAGE_HASH,
        ),
        (b"", "not that of the zip", ERROR_INVALID_IMAGE_HASH),
        (
            dll(OWN, b"another"),
            "its SHA-256 is not that of the wintun.dll of Wintun 9.9",
            ERROR_INVALID_IMAGE_HASH,
        ),
        (b"MZ", "its SHA-256 is not that of the wintun.dll of Wintun 9.9", ERROR_INVALID_IMAGE_HASH),
        (
            DLLS["arm64"],
            "is for arm64, not for amd64; to get the right one, run: threepipe driver install",
            ERROR_BAD_EXE_FORMAT,
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(AdapterUnavailable) as raised:
            driver.get_package(path)
        assert text in str(raised.value)
        assert error_code(raised.value) == code


def test_a_download_reports_its_progress(served: Path) -> None:
    (served / "release.zip").write_bytes(ZIP)
    told: list[tuple[int, int | None]] = []
    package = driver.get_package(progress=lambda done, total: told.append((done, total)))
    assert package.dll == DLLS[OWN]
    assert told[-1] == (len(ZIP), len(ZIP))


def test_a_download_of_another_file_raises(served: Path) -> None:
    (served / "release.zip").write_bytes(b"<html>buy this domain</html>")
    with pytest.raises(AdapterUnavailable, match="SHA-256 is not that of the zip of Wintun"):
        driver.get_package()


def test_a_download_beyond_the_limit_is_stopped(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_MAX_SIZE", 1 << 17)
    (served / "release.zip").write_bytes(bytes(1 << 20))
    told: list[int] = []
    with pytest.raises(AdapterUnavailable, match="SHA-256 is not that of the zip of Wintun"):
        driver.get_package(progress=lambda done, total: told.append(done))
    assert told[-1] < 1 << 18


@pytest.mark.usefixtures("served")
def test_a_missing_download_raises_with_advice() -> None:
    with pytest.raises(
        AdapterUnavailable, match=r"cannot be downloaded: .*; download it another way and name the file"
    ):
        driver.get_package()


def test_a_download_without_a_network_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "RELEASE", release.RELEASE._replace(url="http://127.0.0.1:1/release.zip"))
    with pytest.raises(AdapterUnavailable, match="cannot be downloaded"):
        driver.get_package()


def test_install_replaces_the_old_file_atomically(files: Path, machine: Path) -> None:
    machine.mkdir(parents=True)
    (machine / DLL_NAME).write_bytes(b"old")
    with open(machine / DLL_NAME, "rb") as old:
        if sys.platform == "win32":  # On Windows, a file in use cannot be replaced.
            with pytest.raises(PermissionDenied, match=r"or a program uses .*; end that program first"):
                driver.get_package(files / "some.dll").install()
            assert [path.name for path in machine.iterdir()] == [DLL_NAME]
        else:
            driver.get_package(files / "some.dll").install()
        assert old.read() == b"old"
    driver.get_package(files / "some.dll").install()
    assert (machine / DLL_NAME).read_bytes() == DLLS[OWN]
    assert [path.name for path in machine.iterdir()] == [DLL_NAME]


def refuse(*_: object) -> None:
    raise PermissionError(13, "no")


def test_install_without_write_permission_leaves_nothing(
    files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", refuse)  # Root can write anywhere.
    with pytest.raises(PermissionDenied, match="is not writable by this user"):
        driver.get_package(files / "release.zip").install()
    assert [*machine.iterdir()] == []


def test_uninstall_removes_the_driver_before_the_files(files: Path, machine: Path) -> None:
    driver.get_package(files / "release.zip").install()
    order: list[bool] = []
    removed = driver.uninstall(lambda: order.append((machine / DLL_NAME).exists()))
    assert removed == [machine / DLL_NAME, machine / "LICENSE.txt"]
    assert order == [True]
    assert not machine.exists()
    assert driver.uninstall(lambda: None) == []


def test_uninstall_keeps_other_files(files: Path, machine: Path) -> None:
    driver.get_package(files / "some.dll").install()
    (machine / "mine.txt").touch()
    assert driver.uninstall(lambda: None) == [machine / DLL_NAME]
    assert [path.name for path in machine.iterdir()] == ["mine.txt"]


def test_uninstall_with_a_driver_in_use_keeps_the_files(files: Path, machine: Path) -> None:
    def in_use() -> None:
        raise AdapterError(1, "an adapter is there")

    driver.get_package(files / "some.dll").install()
    with pytest.raises(AdapterError, match="an adapter is there"):
        driver.uninstall(in_use)
    assert (machine / DLL_NAME).exists()


def test_uninstall_of_a_file_in_use_raises(files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.get_package(files / "some.dll").install()
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionDenied, match="end that program first"):
        driver.uninstall(lambda: None)


def test_find_library_searches_the_user_folder_and_the_program_folder(
    files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AdapterUnavailable, match=r"there is no wintun\.dll .*; run: threepipe driver install") as no:
        library.find_library()
    assert error_code(no.value) == ERROR_FILE_NOT_FOUND
    users = driver.get_package(files / "some.dll").install()
    assert library.find_library() == users
    (files / "program").mkdir()
    monkeypatch.setattr(sys, "executable", str(files / "program" / "python.exe"))
    beside = driver.get_package(files / "some.dll").install(files / "program")
    assert library.find_library() == beside
    monkeypatch.setenv(library.VARIABLE, str(files / "some.dll"))
    assert library.find_library() == files / "some.dll"
    library.use_library(users)
    try:
        assert library.find_library() == users
        assert library.is_named(users)
    finally:
        library.use_library(None)
    assert not library.is_named(users)


def test_find_library_with_a_missing_named_file_raises(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.get_package(files / "some.dll").install()
    monkeypatch.setenv(library.VARIABLE, str(files / "nothing"))
    with pytest.raises(AdapterUnavailable, match="chosen by THREEPIPE_WINTUN or by the program, is not a file"):
        library.find_library()


def test_find_library_without_a_user_folder_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAPPDATA")
    with pytest.raises(AdapterUnavailable, match="LOCALAPPDATA, the user's data folder, is not set"):
        library.find_library()


def test_a_dll_that_is_not_pinned_is_not_loaded(files: Path, machine: Path) -> None:
    machine.mkdir(parents=True)
    for content, text in (
        (dll(OWN, b"another"), "was not used: its SHA-256 is not that of"),
        (DLLS["x86"], "is for x86, not for amd64"),
        (b"", "not that of the wintun.dll"),
    ):
        (machine / DLL_NAME).write_bytes(content)
        with pytest.raises(AdapterUnavailable, match=text):
            library.load_library(library.find_library())
        assert driver.installed_library().version is None or content == DLLS["x86"]


def test_a_pinned_dll_that_cannot_be_loaded_raises(files: Path) -> None:
    with pytest.raises(AdapterUnavailable, match="cannot be loaded: it is for amd64, this Python for amd64"):
        library.load_library(files / "some.dll")
    with pytest.raises(AdapterUnavailable, match="is gone; run"):
        library.load_library(files / "nothing")


def test_a_named_file_is_loaded_without_a_hash_check(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files / "text.dll"
    path.write_text("no library")
    monkeypatch.setenv(library.VARIABLE, str(path))
    with pytest.raises(AdapterUnavailable, match=r"text\.dll cannot be loaded: ") as raised:
        library.load_library(path)
    assert error_code(raised.value) == ERROR_BAD_EXE_FORMAT


def test_a_dll_without_read_permission_raises(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionDenied, match="this user may not read"):
        library.load_library(files / "some.dll")


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="builds a library with gcc")
def test_running_version_parses_the_version_of_the_driver(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threepipe.platforms.windows.running import running_version

    source, built = files / "driver.c", files / "driver.so"
    for number, expected in ((0, None), (0x000E0001, "14.1"), (14, "0.14")):
        source.write_text(f"unsigned WintunGetRunningDriverVersion(void) {{ return {number}; }}\n")
        # Each library has another name, as a loaded one may be kept.
        path = built.with_name(f"driver{number}.so")
        subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(path)], check=True, timeout=50)
        monkeypatch.setenv(library.VARIABLE, str(path))
        assert running_version() == expected
    source.write_text("int nothing;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(built)], check=True, timeout=50)
    monkeypatch.setenv(library.VARIABLE, str(built))
    with pytest.raises(AdapterUnavailable, match="is not Wintun, as it lacks WintunGetRunningDriverVersion"):
        running_version()


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [("win-amd64", "amd64"), ("win-arm64", "arm64"), ("win32", "x86"), ("win-arm32", "arm")],
)
def test_process_architecture_is_that_of_this_python(
    monkeypatch: pytest.MonkeyPatch, platform: str, architecture: str
) -> None:
    monkeypatch.undo()  # Undo the architecture that the fixture set.
    monkeypatch.setattr("sysconfig.get_platform", lambda: platform)
    assert release.process_architecture() == architecture
    monkeypatch.setattr("sysconfig.get_platform", lambda: "linux-riscv64")
    with pytest.raises(AdapterUnavailable, match=r"for linux-riscv64, .* for Windows on amd64, arm64, x86, arm"):
        release.process_architecture()


def test_architecture_of_reads_the_machine_field() -> None:
    assert [architecture_of(content) for content in DLLS.values()] == [*DLLS]
    for content in (b"", b"MZ", b"\x7fELF" + bytes(100), dll("x86").replace(b"PE", b"NE"), b"ZM" + dll("x86")[2:]):
        assert architecture_of(content) is None
    beyond = bytearray(dll("x86"))
    beyond[0x3C:0x40] = b"\xff\xff\xff\xff"
    assert architecture_of(bytes(beyond)) is None


class TestCommands:
    """The command line, run in this process on the machine of the fixture."""

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
        return functools.partial(run_here, monkeypatch, capfd, "driver")

    def test_install_prints_the_path_and_path_finds_it(self, run: Any, files: Path, machine: Path) -> None:
        none: Done = run("path")
        assert (none.status, none.printed) == (1, "")
        assert "there is no wintun.dll beside the program" in none.complaint
        done: Done = run("install", "--from", str(files / "release.zip"), "--accept-licence")
        assert (done.status, done.printed.strip(), done.complaint) == (0, str(machine / DLL_NAME), "")
        assert run("path").printed.strip() == str(machine / DLL_NAME)

    def test_install_downloads_for_another_architecture(self, run: Any, served: Path, machine: Path) -> None:
        (served / "release.zip").write_bytes(ZIP)
        done: Done = run("install", "--accept-licence", "--architecture", "arm", "--to", str(served / "dist"))
        assert (done.status, done.complaint) == (0, "")
        assert (served / "dist" / DLL_NAME).read_bytes() == DLLS["arm"]
        assert not machine.exists()

    def test_install_without_accepting_the_licence_fails(self, run: Any, files: Path, machine: Path) -> None:
        done: Done = run("install", "--from", str(files / "release.zip"))
        assert done.status == 1
        assert "to accept it, add --accept-licence" in done.complaint
        assert not machine.exists()

    @pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1)])
    def test_install_on_a_terminal_asks_for_the_licence(
        self, run: Any, files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
    ) -> None:
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        done: Done = run("install", "--from", str(files / "release.zip"))
        assert done.status == status
        assert done.printed.startswith("Read me first.\n")
        assert machine.exists() == (status == 0)

    def test_install_of_a_foreign_file_fails(self, run: Any, files: Path, machine: Path) -> None:
        (files / "some.dll").write_bytes(DLLS["x86"])
        done: Done = run("install", "--from", str(files / "some.dll"), "--accept-licence")
        assert done.status == 1
        assert "some.dll is for x86, not for amd64" in done.complaint
        assert not machine.exists()

    def test_version_prints_dll_and_driver(
        self, run: Any, files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.get_package(files / "some.dll").install()
        monkeypatch.setattr("threepipe.platforms.driver.running_version", lambda: "0.14")
        shown: Done = run("version")
        assert [line.split()[-1] for line in shown.printed.splitlines()] == [
            str(machine / DLL_NAME),
            sha256(DLLS[OWN]),
            "9.9",
            "0.14",
        ]
        assert json.loads(run("version", "--json").printed) == {
            "path": str(machine / DLL_NAME),
            "sha256": sha256(DLLS[OWN]),
            "version": "9.9",
            "running": "0.14",
        }

    def test_remove_without_a_dll_fails(self, run: Any) -> None:
        done: Done = run("remove")
        assert done.status == 1
        assert "there is no wintun.dll" in done.complaint


@pytest.mark.skipif(sys.platform != "win32", reason="looks at Windows")
def test_the_probe_of_windows_reports_its_findings(files: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        from threepipe.platforms.windows.probe import probe

        found = {finding.name: finding for finding in probe()}
        assert list(found) == ["system", "administrator", DLL_NAME, "IPv6"]
        assert not found[DLL_NAME].ok
        assert found[DLL_NAME].advice == "run: threepipe driver install"
        assert all(finding.ok or finding.advice for finding in found.values())
