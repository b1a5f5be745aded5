"""The bills of materials in the wheels: they list what the locks hold, and the wheels bundle nothing else."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import threepipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="releases are built on Linux")

ROOT = Path(__file__).parents[2]

Versions = set[tuple[str, str]]


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


def test_the_pure_wheel_bundles_no_library_of_others(pure_wheel: zipfile.ZipFile) -> None:
    """Wintun's DLL is fetched by `threepipe driver install`; in a wheel it would have to be in the bill."""
    kinds = {Path(name).suffix for name in pure_wheel.namelist() if ".dist-info/" not in name}
    assert kinds <= {".py", ".typed"}


def test_the_bill_of_the_native_core_lists_the_crates_that_it_is_built_from() -> None:
    try:
        files = importlib.metadata.files("threepipe-native") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the native core is not installed")
    (bill,) = [path for path in files if path.parent.name == "sboms"]
    assert versions(bill.read_text()) == crates_of("threepipe-native")


def crates_of(root: str) -> Versions:
    """Return the crates that `root` needs, by Cargo.lock and without those for tests alone."""
    packages = tomllib.loads((ROOT / "native" / "Cargo.lock").read_text())["package"]
    of_tests = tomllib.loads((ROOT / "native" / "core" / "Cargo.toml").read_text())["dev-dependencies"]
    found: Versions = set()
    ahead = [package for package in packages if package["name"] == root]
    while ahead:
        for wanted in ahead.pop().get("dependencies", []):
            name, _, version = wanted.partition(" ")
            for package in packages:
                named = package["name"] == name and version in ("", package["version"])
                pair = (package["name"], package["version"])
                if named and name not in of_tests and pair not in found:
                    found.add(pair)
                    ahead.append(package)
    return found
