"""docs/architecture.md: its picture of the layers and its three flows are those of the code."""

import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

if sys.platform != "linux":
    pytest.skip("the flows go through the Linux platform, which only Linux can import", allow_module_level=True)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CALLS = re.findall(r"`(threepipe[\w.]+)` calls\s+`(threepipe[\w.]+)`", PAGE)
NAMES = sorted(set(re.findall(r"`(threepipe\.[\w.]+)`", PAGE)))
FLOWS = [flow for flow in PAGE.split("\n## ") if flow.startswith("Flow ")]


def resolve(name: str) -> object:
    """Return the object that a dotted name stands for: a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = vars(found)[part] if isinstance(found, ModuleType) or part in vars(found) else getattr(found, part)
        return found
    raise AssertionError(f"{name} is gone")


def test_the_picture_of_the_layers_is_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    (picture,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert [re.split(r" {2,}", line)[0] for line in picture.splitlines()] == layers


def test_every_layer_is_a_room_of_the_package() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    rooms = {path.stem for path in (ROOT / "src" / "threepipe").iterdir() if path.suffix == ".py" or path.is_dir()}
    named = {room for layer in layers for room in layer.split(" : ")}
    assert named == rooms - {"__init__", "__pycache__", "py"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_on_the_page_exists(name: str) -> None:
    resolve(name)


@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_a_call_of_the_flows_is_in_the_code(caller: str, callee: str) -> None:
    resolve(callee)
    source = inspect.getsource(resolve(caller))  # type: ignore[arg-type]
    assert re.search(rf"\b{callee.rpartition('.')[2]}\b", source.split(":", 1)[1]), f"{caller} no longer names {callee}"


def test_each_of_the_three_flows_names_its_calls() -> None:
    assert len(FLOWS) == 3
    assert all(re.search(r"` calls\s+`", flow) for flow in FLOWS)
