"""What tests of the kernel need: namespaces of their own, and a clear word where there can be none."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import threepipe


def _no_kernel() -> str:
    """Why this process cannot make adapters, or nothing. Enters a user namespace where it helps."""
    if sys.platform != "linux":
        return f"adapters are not made on {sys.platform}"
    from threepipe.platforms.linux.namespace import Namespace, enter_user_namespace

    try:
        if os.geteuid():
            enter_user_namespace()
        namespace = Namespace.fresh()
        threepipe.Adapter.create("probe", netns=namespace.path).close()
        namespace.close()
    except threepipe.ThreepipeError as error:
        return f"no adapters can be made here: {error}"
    return ""


AS_ROOT = hasattr(os, "geteuid") and not os.geteuid()
NO_KERNEL = _no_kernel()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and NO_KERNEL:
        if os.environ.get("CI"):
            pytest.fail(f"kernel tests may not be skipped in CI: {NO_KERNEL}")
        pytest.skip(NO_KERNEL)


class Network:
    """A fresh network namespace; `path` names it for `netns=`, `run` runs programs inside it."""

    def __init__(self) -> None:
        from threepipe.platforms.linux.namespace import Namespace

        self.namespace = Namespace.fresh()
        self.path = self.namespace.path
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command: str) -> list[str]:
        """`command` as it has to be started to run inside the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program inside to its end and return what it printed, errors included."""
        done = subprocess.run(
            self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
        return done.stdout


@pytest.fixture
def network() -> Iterator[Network]:
    """A network namespace of the test's own, without a name, that goes with it."""
    fresh = Network()
    yield fresh
    fresh.namespace.close()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test gives back the descriptors it opened."""
    before = _descriptors()
    yield
    assert _descriptors() <= before, "descriptors were left open"


def _descriptors() -> int:
    import gc

    gc.collect()
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
