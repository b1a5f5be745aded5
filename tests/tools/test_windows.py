"""`python tools/windows` where it cannot set itself up: which lacks are nobody's fault, and that each is said last.

The programs it calls are little ones of these tests; nothing is fetched or installed.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Wine is set up on Linux")

TOOL = Path(__file__).parents[2] / "tools" / "windows"
NOT_AVAILABLE, FAILED = 77, 1
TOOLS = dict.fromkeys(("wine64", "x86_64-w64-mingw32-gcc", "mvn"), "exit 1")
"""What has to be there, as scripts of the shell."""

# What Maven says: without a network, without its plugin either, and of a version that nobody has.
UNKNOWN_HOST = "[ERROR] Could not transfer artifact a:b:c from/to central: transfer failed: Unknown host"
NO_PLUGIN = "[ERROR] No plugin found for prefix 'dependency' in the current project"
NOT_FOUND = "[ERROR] Unable to find artifact. a:b:c was not found in https://repo.maven.apache.org/maven2"

SAY = 'echo "{}"; exit 1'
MAKE_ANOTHER_FILE = """\
for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done
mkdir "$folder"
echo > $folder/other.jar"""


def set_up(tmp_path: Path, programs: Mapping[str, str]) -> tuple[int, str]:
    """The status of the tool where those programs alone are to be found, and its last line."""
    folder = program_folder(tmp_path, programs)
    done = subprocess.run(
        [sys.executable, TOOL, "--python", "-V"],
        env={"PATH": str(folder), "THREEPIPE_WINDOWS_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()[-1]


def program_folder(tmp_path: Path, programs: Mapping[str, str]) -> Path:
    """A folder with those scripts of the shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_tools_that_are_missing_and_nobody_installs(tmp_path: Path) -> None:
    status, said = set_up(tmp_path, {name: TOOLS[name] for name in ("wine64",)})
    assert status == NOT_AVAILABLE
    assert said.startswith("*** NOTHING WAS RUN ON WINDOWS' PYTHON: ")
    assert "gcc-mingw-w64-x86-64 maven" in said


@pytest.mark.parametrize(
    ("maven", "status", "told"),
    [
        pytest.param(SAY.format(UNKNOWN_HOST), NOT_AVAILABLE, "Unknown host", id="no network"),
        pytest.param(SAY.format(NO_PLUGIN), NOT_AVAILABLE, "No plugin", id="nor a plugin"),
        pytest.param(SAY.format(NOT_FOUND), FAILED, "was not found", id="no such artifact"),
        pytest.param(MAKE_ANOTHER_FILE, FAILED, "not the expected", id="another file"),
    ],
)
def test_what_maven_may_do(tmp_path: Path, maven: str, status: int, told: str) -> None:
    found, said = set_up(tmp_path, TOOLS | {"mvn": maven})
    assert found == status
    assert said.startswith("*** NOTHING WAS RUN ON WINDOWS' PYTHON: ")
    assert told in said


def test_what_was_begun_is_begun_again(tmp_path: Path) -> None:
    """A part is whole, or not there."""
    set_up(tmp_path, TOOLS | {"mvn": MAKE_ANOTHER_FILE})
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.suffix != ".unfinished"]


BUILD_CORE = """
import sys
sys.path.insert(0, sys.argv[1])
from cache import Cache, SetupFailed
from native import native_core
try:
    print((native_core(Cache()) / "threepipe_native.pyd").read_text())
except SetupFailed as failure:
    print(type(failure).__name__, failure)
"""
ASKED_IN_VAIN = SAY.format("error: failed to download from crates.io")
NO_LIBRARY = 'echo "$0-has-no-such-target"'
BUILD = """\
folder=$CARGO_TARGET_DIR/x86_64-pc-windows-gnu/release
mkdir -p $folder
echo core > $folder/threepipe_native.dll"""


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        pytest.param({}, "NotAvailable the native core needs cargo", id="no cargo"),
        pytest.param({"cargo": BUILD, "rustc": NO_LIBRARY}, "NotAvailable this Rust has no standard", id="no rustup"),
        pytest.param(
            {"cargo": BUILD, "rustc": NO_LIBRARY, "rustup": SAY.format("error: no network")},
            "NotAvailable rustup target add x86_64-pc-windows-gnu failed: error: no network",
            id="rustup in vain",
        ),
        pytest.param({"cargo": ASKED_IN_VAIN, "rustc": "echo /"}, "NotAvailable building", id="cargo in vain"),
        pytest.param({"cargo": SAY.format("error[E0308]"), "rustc": "echo /"}, "SetupFailed building", id="no Rust"),
        pytest.param({"cargo": BUILD, "rustc": NO_LIBRARY, "rustup": "exit 0"}, "core", id="rustup had it"),
    ],
)
def test_what_the_native_core_takes(tmp_path: Path, programs: Mapping[str, str], told: str) -> None:
    folder = program_folder(tmp_path, programs)
    done = subprocess.run(
        [sys.executable, "-c", BUILD_CORE, TOOL],
        env={"PATH": str(folder), "THREEPIPE_WINDOWS_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1].startswith(told)
