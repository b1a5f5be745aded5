"""What tests of the kernel need: namespaces of their own, and a clear word where there can be none."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import threepipe
from tests.support.kernel import Network

if sys.platform != "linux":
    collect_ignore_glob = ["linux/*", "wine/*"]  # They import what others lack.

if sys.platform == "win32":
    # What is found by chance is found where tests run fast: under Wine, too slow would be the word for most of them.
    hypothesis.settings.register_profile("windows", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("windows")


def _no_kernel() -> str:
    """Why this process cannot make adapters, or nothing. Enters a user namespace where it helps."""
    if sys.platform != "linux":
        return f"adapters are not made on {sys.platform}"
    from threepipe.platforms.linux.namespace import Namespace, enter_user_namespace

    try:
        if os.geteuid():
            enter_user_namespace()
        namespace = Namespace.fresh()
        try:
            threepipe.Adapter.create("probe", netns=namespace.path).close()
        finally:
            namespace.close()
    except threepipe.ThreepipeError as error:
        return f"no adapters can be made here: {error}"
    return ""


# Shells let programs in the background ignore Ctrl-C, and so would all that we start and want to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_KERNEL = _no_kernel()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and NO_KERNEL:
        if os.environ.get("CI"):
            pytest.fail(f"kernel tests may not be skipped in CI: {NO_KERNEL}")
        pytest.skip(NO_KERNEL)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network namespace of the test's own, without a name, that goes with it."""
    fresh = Network()
    yield fresh
    fresh.namespace.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the test's own. Pytest's goes by the user's name, which in a user namespace is root's."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test gives back the descriptors it opened."""
    before = _descriptors()
    yield
    if _descriptors() > before:
        gc.collect()  # Some belong to objects in cycles; collecting for every test would take long.
    assert _descriptors() <= before, "descriptors were left open"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
