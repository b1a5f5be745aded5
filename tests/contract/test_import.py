"""The package as a whole: the modules that an import loads, and the exported names."""

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest

import threepipe
from threepipe import errors
from threepipe.backend import Finding
from threepipe.platforms import unsupported
from threepipe.settings import AdapterSettings

HEAVY = {"pyroute2", "rich", "typer", "asyncio", "cryptography", "ctypes", "hypothesis", "uuid"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that `statement` loads in a fresh interpreter."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=50)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_loads_no_heavy_module() -> None:
    loaded = loaded_by("import threepipe")
    assert "threepipe" in loaded
    assert not loaded & (HEAVY | {"dataclasses", "inspect"})


def test_a_session_used_without_asyncio_does_not_load_asyncio() -> None:
    use = "left, right = threepipe.MemoryAdapter.pair(); left.start_session().close(); left.close(); right.close()"
    assert not loaded_by(f"import threepipe; {use}") & HEAVY


def test_a_wireguard_device_without_an_adapter_does_not_load_pyroute2() -> None:
    assert "pyroute2" not in loaded_by("import threepipe.wireguard; threepipe.wireguard.Device().close()")


def test_every_exported_name_exists_and_the_list_is_sorted() -> None:
    assert [name for name in threepipe.__all__ if not hasattr(threepipe, name)] == []
    assert threepipe.__all__ == sorted(threepipe.__all__)


def test_modules_and_late_names_are_there_after_the_import_alone() -> None:
    late = ("MemoryAdapter", "open_endpoint", "ring", "testing", "wireguard")
    program = f"import threepipe; print(*[getattr(threepipe, name).__name__ for name in {late}])"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=50)
    names = ["MemoryAdapter", "open_endpoint", "threepipe.ring", "threepipe.testing", "threepipe.wireguard"]
    assert done.stdout.split() == names
    assert {*late, *threepipe.__all__} <= {*dir(threepipe)}
    with pytest.raises(AttributeError, match="module 'threepipe' has no attribute 'Socket'"):
        _ = threepipe.Socket


def test_packets_pass_in_a_subinterpreter_with_or_without_the_native_core() -> None:
    inner = (
        "import threepipe; left, right = threepipe.MemoryAdapter.pair(); receiving = right.start_session()\n"
        "print(left.start_session().send([bytes([69]) + bytes(19)]), len(receiving.receive(5)))"
    )
    interpreters = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    program = f"import threepipe, {interpreters} as sub; sub.run_string(sub.create(), {inner!r})"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=50)
    assert done.stdout == "1 1\n"


def test_a_native_core_that_this_interpreter_cannot_load_is_replaced_by_python() -> None:
    program = (
        "import sys\nclass Broken:\n"
        " def find_spec(self, name, *_):\n"
        "  if name == 'threepipe._native': raise SystemError('no core for this Python')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import threepipe; from threepipe.core import fast; print(threepipe.native_core, fast.REASON)"
    )
    settings = {**os.environ, "THREEPIPE_PURE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=settings, stdout=subprocess.PIPE, text=True, check=True, timeout=50
    )
    assert done.stdout == "False no core for this Python\n"


def test_every_error_is_exported_and_has_a_docstring() -> None:
    for name in errors.__all__:
        error = getattr(threepipe, name)
        assert error is getattr(errors, name)
        assert issubclass(error, threepipe.ThreepipeError)
        assert error.__doc__


def test_errors_keep_their_arguments() -> None:
    for name in {*errors.__all__} - {"InvalidPacket"}:
        kind = getattr(errors, name)
        if issubclass(kind, threepipe.AdapterError):
            error = kind(errno.EPERM, "do this next")
            assert isinstance(error, OSError)
            assert (error.errno, error.strerror) == (errno.EPERM, "do this next")
        else:
            assert str(kind("do this next")) == "do this next"


def test_errors_are_subclasses_of_the_builtin_errors() -> None:
    assert issubclass(threepipe.InvalidSetting, ValueError)
    assert issubclass(threepipe.InvalidPacket, ValueError)
    assert issubclass(threepipe.PermissionDenied, PermissionError)
    error = threepipe.InvalidPacket(7, "is empty")
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert (found.index, str(found)) == (7, "packet 7 is empty")


def test_an_unsupported_system_raises_adapter_unavailable_with_advice() -> None:
    settings = AdapterSettings("t")
    uses: list[Callable[[], object]] = [
        lambda: unsupported.create(settings),
        lambda: unsupported.open_existing("t", None, True, 1, False),
        lambda: unsupported.find_user("t"),
        lambda: unsupported.become(None, keep_net_admin=False),
        lambda: unsupported.adapters(None),
        unsupported.private_networks,
    ]
    for use in uses:
        with pytest.raises(threepipe.AdapterUnavailable, match="MemoryAdapter works everywhere") as caught:
            use()
        assert caught.value.errno == errno.ENOSYS


def test_next_hops_on_an_unsupported_system_raise_adapter_unavailable_with_advice() -> None:
    with pytest.raises(threepipe.AdapterUnavailable, match=r"only on Linux.*give peers AllowedIPs instead"):
        unsupported.open_next_hops(1, "t", None)


def test_the_probe_of_an_unsupported_system_finds_an_essential_lack() -> None:
    (finding,) = unsupported.probe()
    assert (finding.ok, finding.essential) == (False, True)
    assert Finding("driver", True, "it is there") == Finding("driver", True, "it is there", "", False)


def test_adapters_of_a_missing_namespace_raises() -> None:
    with pytest.raises(
        (threepipe.AdapterError, threepipe.InvalidSetting)
    ):  # InvalidSetting where the system has no namespaces.
        threepipe.adapters("/no/such/namespace")


def test_the_memory_module_is_loaded_on_first_use() -> None:
    for use, loaded in (("threepipe", "False"), ("threepipe.MemoryAdapter", "True")):
        program = f"import sys, threepipe; {use}; print('threepipe.memory' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=50
        )
        assert done.stdout.strip() == loaded
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = threepipe.nothing
