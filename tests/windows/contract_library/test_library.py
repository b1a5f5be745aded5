"""The contract library itself: its structures, its exports, and its memory."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.contract_dll.build import build, compiler, sanitizer
from tests.support.contract_dll.library import PROTOTYPES, Counters, Fault, Function, Interface, Kind, Statistics
from tests.support.contract_packets import GIVEN

pytestmark = pytest.mark.windows


@pytest.mark.skipif(not compiler("linux"), reason="there is no gcc to compile the header with")
def test_structures_and_constants_equal_those_of_the_header() -> None:
    structures = {"CONTRACT_INTERFACE": Interface, "CONTRACT_STATISTICS": Statistics, "CONTRACT_COUNTERS": Counters}
    checks = [f"sizeof({name}) == {ctypes.sizeof(ours)}" for name, ours in structures.items()]
    for name, ours in structures.items():
        for field, *_ in ours._fields_:
            theirs = {"guid": "InterfaceGuid", "luid": "InterfaceLuid"}.get(field, field.title().replace("_", ""))
            checks.append(f"offsetof({name}, {theirs}) == {getattr(ours, field).offset}")
    for prefix, numbers in (("CONTRACT_", Function), ("CONTRACT_FAULT_", Fault), ("CONTRACT_", Kind)):
        checks += [f"{prefix}{entry.name} == {entry.value}" for entry in numbers]
    checks.append(f"CONTRACT_FUNCTIONS == {len(Function)}")
    asserts = [f'_Static_assert({check}, "ours differs");' for check in checks]
    source = "\n".join(["#include <stddef.h>", '#include "contract.h"', *asserts, ""])
    header = Path(__file__).parents[2] / "support" / "contract_dll"
    command = ["gcc", "-std=c17", "-Wall", "-Werror", "-fsyntax-only", f"-I{header}", "-x", "c", "-"]
    done = subprocess.run(command, input=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(bool(GIVEN), reason="the library is given")
@pytest.mark.skipif(not compiler("windows"), reason="there is no mingw-w64 here to build the DLL with")
@pytest.mark.timeout(300)
def test_the_dll_exports_every_function_by_name(request: pytest.FixtureRequest) -> None:
    dll = build("windows", request.config.cache.mkdir("contract"))
    listing = subprocess.check_output(["x86_64-w64-mingw32-objdump", "-p", str(dll)], text=True)
    exports = {line.split()[-1] for line in listing.partition("Ordinal/Name")[2].partition("\n\n")[0].splitlines()[1:]}
    assert exports == set(PROTOTYPES)


@pytest.mark.skipif(bool(GIVEN), reason="the library is given")
@pytest.mark.skipif(not sanitizer(), reason="there is no gcc with AddressSanitizer")
@pytest.mark.timeout(300)
def test_the_library_tests_pass_under_address_sanitizer(path: Path, request: pytest.FixtureRequest) -> None:
    library = build("linux-asan", request.config.cache.mkdir("contract"))
    environment = os.environ | {
        "THREEPIPE_CONTRACT": str(library),
        "LD_PRELOAD": str(sanitizer()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks much on purpose, and so does the library with its handles.
    }
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
