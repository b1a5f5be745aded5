"""The structures, constants and functions of the Windows platform, compared with mingw-w64's headers."""

import ast
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from threepipe.platforms import windows
from threepipe.platforms.windows import library, release, sockets, structures, winerror, wintun

if sys.platform == "win32":
    pytest.skip("Linux compares the headers, as it has the compilers", allow_module_level=True)

pytestmark = pytest.mark.windows

HEADERS = ["stddef.h", "winsock2.h", "ws2ipdef.h", "windows.h", "iphlpapi.h", "netioapi.h", "ntddndis.h"]
HEADERS += ["winerror.h", "shlobj.h", "setupapi.h"]

COMPILERS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"there is no {name} (mingw-w64)"), id=name
    )
    for name in ("x86_64-w64-mingw32-gcc", "i686-w64-mingw32-gcc")
]

CONSTANTS: dict[ModuleType, tuple[str, ...]] = {
    structures: ("AF_", "IF_", "IfOper", "Ndis", "ScopeLevel", "IpDad", "Router", "RouteProtocol", "DNS_"),
    winerror: ("ERROR_", "NO_ERROR"),
    wintun: ("ERROR_",),
    library: ("GENERIC_", "FILE_", "OPEN_", "LOAD_"),
    sockets: ("UDP_", "IP_", "IPV6_"),
}
"""The prefixes of constant names, by module."""

UNCHECKED = {
    "DNS_INTERFACE_SETTINGS",
    "DNS_INTERFACE_SETTINGS_VERSION1",
    "DNS_SETTING_IPV6",
    "DNS_SETTING_NAMESERVER",
    "DNS_SETTING_SEARCHLIST",
    "ERROR_INVALID_IMAGE_HASH",
    "SetInterfaceDnsSettings",
    "UDP_SEND_MSG_SIZE",
}
"""Names that mingw-w64's headers lack; docs/windows.md names them as well."""

C_TYPES: dict[Any, str] = {
    None: "void",
    ctypes.c_int: "int",
    ctypes.c_uint16: "unsigned short",
    ctypes.c_uint32: "unsigned long",
    ctypes.c_size_t: "SIZE_T",
    ctypes.c_void_p: "void *",
    ctypes.c_wchar_p: "const wchar_t *",
}
"""The C types of Windows' headers, by the ctypes type in our tables."""

Prototypes = dict[str, tuple[Any, tuple[Any, ...]]]


class WAITORTIMERCALLBACK(ctypes.c_void_p):
    """A stand-in for the type of callbacks, which ctypes makes on Windows only."""


EVENTS = Path(windows.__path__[0], "events.py")


def assigned_in_events() -> dict[str, Any]:
    """Return the names in capitals of a module that only Windows can import, parsed from its text."""
    known = {**vars(ctypes), "_Callback": WAITORTIMERCALLBACK}
    found = {}
    for node in ast.parse(EVENTS.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(target, ast.Name) and target.id.isupper():
            assert node.value is not None
            found[target.id] = eval(compile(ast.Expression(node.value), EVENTS.name, "eval"), known)
    return found


def kernel_functions() -> Prototypes:
    """Return the functions that are not of the IP Helper."""
    return {**assigned_in_events()["FUNCTIONS"], **library.FUNCTIONS, "IsUserAnAdmin": (ctypes.c_int, ())}


def constants() -> dict[str, int]:
    """Return the constants of our files, by their names in the headers."""
    found = {
        name: value
        for module, prefixes in CONSTANTS.items()
        for name, value in vars(module).items()
        if name.startswith(prefixes) and isinstance(value, int)
    }
    found |= {name: value for name, value in assigned_in_events().items() if type(value) is int}
    machines = {"amd64": "AMD64", "arm64": "ARM64", "x86": "I386", "arm": "ARMNT"}
    return found | {f"IMAGE_FILE_MACHINE_{machines[name]}": value for value, name in release.MACHINES.items()}


def layouts() -> dict[str, Any]:
    """Return the structures and unions by name."""
    kinds = (ctypes.Structure, ctypes.Union)
    return {
        name: kind for name, kind in vars(structures).items() if isinstance(kind, type) and kind.__bases__[0] in kinds
    }


def layout_assertions(name: str, kind: Any) -> Iterator[str]:
    yield f"sizeof({name}) == {ctypes.sizeof(kind)}"
    for field, *_ in kind._fields_:
        place = getattr(kind, field)
        yield f"offsetof({name}, {field}) == {place.offset}"
        yield f"sizeof((({name} *)0)->{field}) == {place.size}"


def c_types(kind: Any, const: bool = False) -> str:
    """Return the ways C may write a ctypes type; a pointer may point to `const`."""
    if kind in C_TYPES:
        return C_TYPES[kind]
    if isinstance(kind, type) and issubclass(kind, ctypes._Pointer):
        return f"{'const ' if const else ''}{c_types(kind._type_)} *"
    return str(kind.__name__)


def prototype_assertion(name: str, result: Any, arguments: tuple[Any, ...]) -> str:
    """Return an assertion that our prototype is that of the header, apart from `const`, which ctypes lacks."""
    choices = [sorted({c_types(kind), c_types(kind, const=True)}) for kind in arguments]
    matches = [f"{c_types(result)} (WINAPI *)({', '.join(choice)}): 1" for choice in product(*choices)]
    return f"_Generic(&{name}, {', '.join(matches)}, default: 0)"


def call(name: str, result: Any, arguments: tuple[Any, ...]) -> str:
    """Return a C function that calls it with our types, for prototypes with pointers that are numbers in ctypes."""
    names = [f"a{number}" for number, _ in enumerate(arguments)]
    parameters = [f"{c_types(kind)} {own}" for kind, own in zip(arguments, names, strict=True)]
    return (
        f"{c_types(result)} call_{name}({', '.join(parameters) or 'void'});\n"
        f"{c_types(result)} call_{name}({', '.join(parameters) or 'void'}) {{ return {name}({', '.join(names)}); }}"
    )


def size_on_stack(kind: Any) -> int:
    """Return the bytes of an argument of a 32-bit function."""
    if issubclass(kind, (ctypes._Pointer, ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_size_t)):
        return 4
    return max(4, ctypes.sizeof(kind))


def assertions() -> Iterator[str]:
    for name, value in constants().items():
        yield f"(unsigned long)(SIZE_T){name} == {value & 0xFFFFFFFF:#x}ul" if name not in UNCHECKED else "1"
    for name, kind in layouts().items():
        if name not in UNCHECKED:
            yield from layout_assertions(name, kind)
    for name, (result, arguments) in structures.FUNCTIONS.items():
        yield prototype_assertion(name, result, arguments)


def compile_against_headers(compiler: str, folder: Path, lines: list[str]) -> str:
    """Return the errors of the compiler."""
    source = folder / "windows.c"
    text = ["#define _WIN32_WINNT 0x0A00", *[f"#include <{header}>" for header in HEADERS], *lines]
    source.write_text("\n".join(text) + "\n")
    command = [compiler, "-std=c11", "-Wall", "-Werror", "-Wconversion", "-fsyntax-only", str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50)
    return done.stdout


def test_the_lists_have_names_of_every_file() -> None:
    assert {"AF_INET6", "NdisMediumIP", "NO_ERROR", "OPEN_EXISTING", "IMAGE_FILE_MACHINE_ARMNT"} <= {*constants()}
    assert {"GUID", "NET_LUID", "SOCKADDR_INET", "MIB_IF_ROW2", "MIB_IPFORWARD_TABLE2"} <= {*layouts()}
    assert {*constants(), *layouts(), *structures.NEWER_FUNCTIONS} >= UNCHECKED


@pytest.mark.parametrize("compiler", COMPILERS)
def test_constants_structures_and_functions_equal_those_of_the_headers(compiler: str, tmp_path: Path) -> None:
    lines = [f'_Static_assert({text}, "ours differs");' for text in assertions()]
    lines += [call(name, *prototype) for name, prototype in kernel_functions().items()]
    assert compile_against_headers(compiler, tmp_path, lines) == ""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_wrong_structure_or_prototype_fails_to_compile(compiler: str, tmp_path: Path) -> None:
    class GUID(ctypes.Structure):
        _fields_ = (("Data1", ctypes.c_uint32), ("Data3", ctypes.c_uint32))

    wrong = [*layout_assertions("GUID", GUID)]
    wrong += [prototype_assertion("GetIfEntry2", ctypes.c_uint16, structures.FUNCTIONS["GetIfEntry2"][1])]
    wrong += [prototype_assertion("GetIfEntry2", ctypes.c_uint32, (ctypes.POINTER(structures.MIB_IF_TABLE2),))]
    complaints = compile_against_headers(compiler, tmp_path, [f'_Static_assert({text}, "x");' for text in wrong])
    assert complaints.count("static assertion failed") == 5


@pytest.mark.parametrize("compiler", COMPILERS[1:])
def test_functions_take_as_many_argument_bytes_as_in_our_tables(compiler: str, tmp_path: Path) -> None:
    # Symbols of 32-bit import libraries contain these sizes, also for the function that no header has.
    functions = {**structures.FUNCTIONS, **structures.NEWER_FUNCTIONS, **kernel_functions()}
    lines = []
    for name, (_, arguments) in functions.items():
        symbol = f"_{name}@{sum(map(size_on_stack, arguments))}"
        lines.append(f'int call_{name}(void) __asm__("{symbol}");')
    lines.append(f"int main(void) {{ return {' + '.join([f'call_{name}()' for name in functions])}; }}")
    source, program = tmp_path / "symbols.c", tmp_path / "symbols.exe"
    source.write_text("\n".join(lines) + "\n")
    command = [compiler, str(source), "-o", str(program), "-liphlpapi", "-lshell32"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50)
    assert done.returncode == 0, done.stdout


def test_pinned_hashes_are_complete_and_distinct() -> None:
    hashes = [release.RELEASE.zip_hash, *release.RELEASE.dll_hashes.values()]
    assert {len(bytes.fromhex(text)) for text in hashes} == {32}
    assert len({*hashes}) == 5
    assert [*release.RELEASE.dll_hashes] == [*release.MACHINES.values()]
