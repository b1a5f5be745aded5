"""The start of the programs: signals, want of memory and closed streams before a program can handle anything."""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

PROGRAMS = {"threepipe": "main", "threepipe-extcap": "extcap", "threepipe-wg": "wireguard"}

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals, limits and shells like these")


def start(
    function: str, *arguments: str, folder: Path | None = None, before: Callable[[], None] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program with `arguments`; modules in `folder` replace those of the same name."""
    code = f"import sys; from threepipe import __main__; sys.exit(__main__.{function}())"
    path = os.pathsep.join([*([str(folder)] if folder else []), *[entry for entry in sys.path if entry]])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=before,
    )


def test_the_installed_commands_start_here() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {name: f"threepipe.__main__:{function}" for name, function in PROGRAMS.items()}
    for function in PROGRAMS.values():
        assert callable(getattr(import_module("threepipe.__main__"), function))


def spoilt(folder: Path, module: str, statement: str) -> Path:
    """Have the statement run when the module is loaded after the program's own code began."""
    own = "any(frame.f_globals.get('__name__') == 'threepipe.__main__' for frame in frames())"
    (folder / f"{module}.py").write_text(
        "import signal, sys\n"
        "def frames():\n"
        "    frame = sys._getframe()\n"
        "    while frame: yield frame; frame = frame.f_back\n"
        f"if {own}: {statement}\n"
    )
    return folder


@posix
def test_ctrl_c_while_libraries_load_ends_the_program_without_a_word(tmp_path: Path) -> None:
    done = start("main", "--version", folder=spoilt(tmp_path, "typer", "signal.raise_signal(signal.SIGINT)"))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@posix
def test_an_ignored_ctrl_c_stays_ignored_while_libraries_load(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, "typer", "signal.raise_signal(signal.SIGINT); raise MemoryError")
    done = start("main", "--version", folder=folder, before=lambda: ignore(signal.SIGINT))
    assert done.returncode == 1


def ignore(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError",
        "ImportError('x.so: failed to map segment from shared object')",
        "ImportError('x.so: cannot allocate memory in static TLS block')",
        'RuntimeError("can\'t start new thread")',
        "OSError(12, 'Cannot allocate memory')",
        "ValueError from MemoryError()",
        "SystemError('error return without exception set')",
    ],
)
def test_want_of_memory_is_one_line_of_advice(tmp_path: Path, error: str) -> None:
    done = start("main", "--version", folder=spoilt(tmp_path, "typer", f"raise {error}"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("threepipe: memory ran out")
    assert "ulimit -v" in line


def test_a_defect_is_not_taken_for_want_of_memory(tmp_path: Path) -> None:
    done = start("main", "--version", folder=spoilt(tmp_path, "typer", "raise RuntimeError('a defect')"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a defect" in done.stderr


@posix
@pytest.mark.soak  # At some limits CPython prints a traceback before any code of ours runs.
@pytest.mark.parametrize("mebibytes", [32, 48, 64])
@pytest.mark.parametrize("command", [("doctor",), ("adapter", "list"), ("pipe", "echo", "discard", "--run", "true")])
def test_a_real_limit_of_memory_never_shows_a_traceback(command: tuple[str, ...], mebibytes: int) -> None:
    """The limits are about what these programs need, and enough to load the module that prints the line."""
    done = start("main", *command, before=lambda: limit_memory(mebibytes << 20))
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr.splitlines()[-1].startswith("threepipe: memory ran out")
    assert done.returncode in (0, 1)


def limit_memory(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (size, size))


@posix
@pytest.mark.parametrize("closed", ["1", "0 1 2"])
@pytest.mark.parametrize("command", [("doctor",), ("demo", "--help")])
def test_closed_standard_streams_are_null(command: tuple[str, ...], closed: str) -> None:
    def close() -> None:
        for number in closed.split():
            os.close(int(number))

    with_streams = start("main", *command)
    done = start("main", *command, before=close)
    assert done.returncode == with_streams.returncode
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("function", "arguments", "module", "extra"),
    [
        ("main", ["--version"], "typer", "cli"),
        ("main", ["doctor"], "rich", "cli"),
        ("main", ["wg", "genkey"], "cryptography", "wireguard"),
        ("wireguard", ["--version"], "cryptography", "wireguard"),
    ],
)
def test_a_missing_library_is_told_with_the_extra_that_brings_it(
    tmp_path: Path, function: str, arguments: list[str], module: str, extra: str
) -> None:
    done = start(function, *arguments, folder=without(tmp_path, module))
    program = "threepipe-wg" if function == "wireguard" else "threepipe"
    told = f'{program}: {module} is not installed; run: pip install "threepipe[{extra}]"\n'
    assert (done.returncode, done.stderr) == (1, told)


def test_the_package_and_an_adapter_need_no_extra(tmp_path: Path) -> None:
    folder = without(tmp_path, "typer", "rich", "cryptography")
    program = "import threepipe; left, right = threepipe.MemoryAdapter.pair(); threepipe.testing.check_adapter"
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", program], env=settings, check=True, timeout=50)


def test_wireguard_without_its_library_names_the_extra(tmp_path: Path) -> None:
    folder = without(tmp_path, "cryptography")
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", "import threepipe; threepipe.wireguard"],
        env=settings,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stderr.rstrip().endswith('needs cryptography; run: pip install "threepipe[wireguard]"')


def without(folder: Path, *modules: str) -> Path:
    """Have an interpreter that finds this folder first miss those modules."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {modules}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    return folder
