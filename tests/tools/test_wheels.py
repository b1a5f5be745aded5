"""The wheels: with a native core or without, and bills of materials that list the content of the locks."""

import email
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import threepipe

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="releases are built on Linux"),
    pytest.mark.timeout(600),  # After a change of Rust's flags, cargo compiles the core again.
]

ROOT = Path(__file__).parents[2]

Versions = set[tuple[str, str]]

CRATES = "import build_native, crates; found = crates.crates(build_native.artifacts())"


def versions(bill: str) -> Versions:
    """Return the names and versions of the components that a bill lists."""
    return {(component["name"], component["version"]) for component in json.loads(bill)["components"]}


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([sys.executable, ROOT / "tools" / "wheels.py", "--pure", folder], check=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_the_bill_of_the_pure_wheel_lists_the_packages_of_the_lock(pure_wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in pure_wheel.namelist() if ".dist-info/sboms/" in name]
    text = pure_wheel.read(name).decode()
    lock = (ROOT / "locks" / "run.txt").read_text()
    assert versions(text) == set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    main = json.loads(text)["metadata"]["component"]
    assert (main["name"], main["version"]) == ("threepipe", threepipe.__version__)


def test_the_description_for_the_package_index_has_no_relative_link(pure_wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in pure_wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(pure_wheel.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert "guide (`docs/guide.md`)" in text
    assert re.findall(r"\]\((?!https:)", text) == []


def test_the_pure_wheel_bundles_no_library_of_others(pure_wheel: zipfile.ZipFile) -> None:
    """Wintun's DLL is fetched by `threepipe driver install`; in a wheel it would have to be in the bill."""
    kinds = {Path(name).suffix for name in pure_wheel.namelist() if not re.search(r"\.(dist-info|data)/", name)}
    assert kinds <= {".py", ".pyi", ".typed", ".bash", ".fish", ".zsh"}


def test_a_wheel_installs_the_files_of_other_programs(pure_wheel: zipfile.ZipFile) -> None:
    shared = {name.partition(".data/data/")[2] for name in pure_wheel.namelist() if ".data/" in name}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "man").glob("man*/*")}
    assert "man/man1/threepipe.1" in pages
    assert (ROOT / "units" / "threepipe-serve.socket").exists()
    assert shared == {
        *[f"share/{page}" for page in pages],
        *[f"lib/systemd/system/{path.name}" for path in (ROOT / "units").iterdir()],
        "share/bash-completion/completions/threepipe",
        "share/fish/vendor_completions.d/threepipe.fish",
        "share/zsh/site-functions/_threepipe",
    }


def test_the_bill_of_the_native_core_lists_crates_of_the_lock_without_those_of_tests(core: Path) -> None:
    lock = tomllib.loads((ROOT / "native" / "Cargo.lock").read_text())["package"]
    listed = versions(tell(f"{CRATES}; print(crates.bill(found, '0.1.0'))"))
    assert listed <= {(package["name"], package["version"]) for package in lock}
    assert {"pyo3", "ring", "rustix"} <= {name for name, _ in listed}
    assert not {"proptest", "threepipe-core", "threepipe-native"} & {name for name, _ in listed}


def test_the_license_texts_are_those_of_every_crate(core: Path) -> None:
    told = tell(f"{CRATES}; print(crates.license_texts(found))")
    names = set(tell(f"{CRATES}; print(*[crate.name for crate in found])").split())
    assert names == set(re.findall(r"^([\w-]+) [\d.]+ \(.*\): [A-Z]", told, re.MULTILINE))
    assert "Permission is hereby granted, free of charge" in told


def tell(program: str) -> str:
    """Return the output of a program with the modules of tools/."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_the_source_archive_holds_tracked_files_alone(tmp_path: Path) -> None:
    git = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if git.returncode:
        pytest.skip("this is not a clone")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert names - {"PKG-INFO"} <= set(git.stdout.splitlines())
    assert {"native/Cargo.lock", "native/core/src/lib.rs", "tools/wheel_hook.py"} <= names


@pytest.mark.parametrize("command", [(0x24, 16, 10 << 16 | 12 << 8, 0x1B0000), (0x32, 24, 1, 10 << 16 | 12 << 8, 1, 0)])
def test_the_oldest_macos_of_a_library_is_read_from_its_header(
    command: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from mach_o import oldest_system

    header = struct.pack("<8I", 0xFEEDFACF, 0x100000C, 0, 6, 2, 40, 0, 0) + struct.pack("<4I", 0x19, 16, 0, 0)
    assert oldest_system(header + struct.pack(f"<{len(command)}I", *command)) == "10.12"
    with pytest.raises(ValueError, match="does not say"):
        oldest_system(header + struct.pack("<4I", 0x19, 16, 0, 0))


def test_the_core_for_macos_is_compiled_for_the_oldest_system_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from wheels import PLATFORMS

    found = {platform.tag: platform.macos for platform in PLATFORMS if platform.macos}
    assert found == {"macosx_10_12_x86_64": "10.12", "macosx_11_0_arm64": "11.0"}


@pytest.fixture
def core() -> Path:
    """The native core of this checkout."""
    path = ROOT / "src" / "threepipe" / "_native.abi3.so"
    if not path.exists():
        pytest.skip("there is no native core, so perhaps no cargo")
    return path


def test_a_checkout_or_source_archive_is_built_with_the_core_where_there_is_a_cargo(core: Path, tmp_path: Path) -> None:
    wheel = wheel_of_checkout(tmp_path, os.environ["PATH"])
    assert re.fullmatch(r"threepipe-[\w.]+-cp311-abi3-linux_\w+\.whl", wheel.name)
    assert zipfile.ZipFile(wheel).read("threepipe/_native.abi3.so").startswith(b"\x7fELF")


@pytest.mark.parametrize("cargo", [None, "echo cargo 1.60.0", "exit 1"], ids=["missing", "old", "broken"])
def test_a_checkout_or_source_archive_is_built_without_the_core_where_cargo_cannot(
    tmp_path: Path, cargo: str | None
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if cargo:
        (programs / "cargo").write_text(f"#!/bin/sh\n{cargo}\n")
        (programs / "cargo").chmod(0o755)
    wheel = wheel_of_checkout(tmp_path, str(programs))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".so", ".pyd"))]


def test_a_core_that_does_not_compile_is_left_out_with_a_warning(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "cargo").write_text('#!/bin/sh\n[ "$1" = --version ] || exit 101\necho cargo 9.0.0\n')
    (programs / "cargo").chmod(0o755)
    assert wheel_of_checkout(tmp_path, str(programs), "it did not build").name.endswith("-py3-none-any.whl")


def wheel_of_checkout(folder: Path, path: str, told: str = "") -> Path:
    """Build a wheel with those programs in PATH, as pip does; `told` is in what the build prints."""
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run(
        [*command, folder, ROOT],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    assert told in done.stdout
    (wheel,) = folder.glob("*.whl")
    return wheel
