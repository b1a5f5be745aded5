"""`python tools/windows` when it cannot set itself up: its exit status, and its last line with the missing parts.

The programs that it calls are small scripts of these tests; nothing is fetched or installed.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Wine is set up on Linux")

TOOL = Path(__file__).parents[2] / "tools" / "windows"
NOT_AVAILABLE, HUNG, FAILED = 77, 124, 1
TOOLS = dict.fromkeys(("wine64", "x86_64-w64-mingw32-gcc", "mvn"), "exit 1")
"""The required programs, as shell scripts."""

# Outputs of Maven: without a network, without its plugin, and with a version that does not exist.
UNKNOWN_HOST = "[ERROR] Could not transfer artifact a:b:c from/to central: transfer failed: Unknown host"
NO_PLUGIN = "[ERROR] No plugin found for prefix 'dependency' in the current project"
NOT_FOUND = "[ERROR] Unable to find artifact. a:b:c was not found in https://repo.maven.apache.org/maven2"

SAY = 'echo "{}"; exit 1'
MAKE_ANOTHER_FILE = """\
for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done
mkdir "$folder"
echo > $folder/other.jar"""


def set_up(tmp_path: Path, programs: Mapping[str, str]) -> tuple[int, str]:
    """Run the tool with those programs alone in PATH; return its status and its last line."""
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
    """Make a folder with those shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_missing_tools_are_named_and_the_status_says_not_available(tmp_path: Path) -> None:
    status, said = set_up(tmp_path, {name: TOOLS[name] for name in ("wine64",)})
    assert status == NOT_AVAILABLE
    assert said.startswith("*** NOTHING WAS RUN ON WINDOWS' PYTHON: ")
    assert "gcc-mingw-w64-x86-64 maven" in said


@pytest.mark.parametrize(
    ("maven", "status", "told"),
    [
        pytest.param(SAY.format(UNKNOWN_HOST), NOT_AVAILABLE, "Unknown host", id="no network"),
        pytest.param(SAY.format(NO_PLUGIN), NOT_AVAILABLE, "No plugin", id="no plugin"),
        pytest.param(SAY.format(NOT_FOUND), FAILED, "was not found", id="no such artifact"),
        pytest.param(MAKE_ANOTHER_FILE, FAILED, "not the expected", id="another file"),
    ],
)
def test_a_failure_of_maven_decides_the_status_and_the_last_line(
    tmp_path: Path, maven: str, status: int, told: str
) -> None:
    found, said = set_up(tmp_path, TOOLS | {"mvn": maven})
    assert found == status
    assert said.startswith("*** NOTHING WAS RUN ON WINDOWS' PYTHON: ")
    assert told in said


def test_an_unfinished_part_is_not_kept(tmp_path: Path) -> None:
    """A part of the cache is complete, or it does not exist."""
    set_up(tmp_path, TOOLS | {"mvn": MAKE_ANOTHER_FILE})
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.suffix != ".unfinished"]


BUILD_CORE = """
import sys
sys.path.insert(0, sys.argv[1])
from cache import Cache, SetupFailed
from native import native_core
try:
    print((native_core(Cache()) / "_native.pyd").read_text())
except SetupFailed as failure:
    print(type(failure).__name__, failure)
"""
NO_DOWNLOAD = SAY.format("error: failed to download from crates.io")
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
            id="rustup fails",
        ),
        pytest.param({"cargo": NO_DOWNLOAD, "rustc": "echo /"}, "NotAvailable building", id="cargo has no network"),
        pytest.param(
            {"cargo": SAY.format("error[E0308]"), "rustc": "echo /"}, "SetupFailed building", id="invalid Rust"
        ),
        pytest.param({"cargo": BUILD, "rustc": NO_LIBRARY, "rustup": "exit 0"}, "core", id="rustup succeeds"),
    ],
)
def test_building_the_native_core_succeeds_or_names_what_is_missing(
    tmp_path: Path, programs: Mapping[str, str], told: str
) -> None:
    folder = program_folder(tmp_path, programs)
    done = subprocess.run(
        [sys.executable, "-c", BUILD_CORE, TOOL],
        env={"PATH": str(folder), "THREEPIPE_WINDOWS_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1].startswith(told)


RUN_TESTS = """
import runpy, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from installation import Windows
run_portable = runpy.run_path(sys.argv[1] + "/__main__.py")["run_portable"]
folder = Path(sys.argv[2])
sys.exit(run_portable(Windows(folder / "wine64", folder, folder, folder), [], {}, silence=float(sys.argv[3])))
"""
SERVER = 'echo $1 >> "$WINEPREFIX/server"'


@pytest.mark.parametrize(
    ("wine", "silence", "status", "told"),
    [
        pytest.param("echo passed; exit 3", 30, 3, "", id="it ends"),
        pytest.param("echo started; exec sleep 60", 0.1, HUNG, "printed nothing for 0.1 seconds", id="it hangs"),
    ],
)
def test_a_run_that_falls_silent_is_killed_with_its_prefix(
    tmp_path: Path, wine: str, silence: float, status: int, told: str
) -> None:
    folder = program_folder(tmp_path, {"wine64": wine, "wineserver": SERVER})
    command = [sys.executable, "-c", RUN_TESTS, str(TOOL), str(folder), str(silence)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == status
    assert told in done.stderr
    assert (folder / "server").exists() == (status == HUNG)
