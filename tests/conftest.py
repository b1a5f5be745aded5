"""Fixtures of all tests: networks and folders of their own, a check for leaks, and the rule for kernel tests."""

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

collect_ignore_glob = [] if "THREEPIPE_SITE" in os.environ else ["site/*"]  # It is for a site that was built.
if sys.platform != "linux":
    collect_ignore_glob += ["linux/*", "wine/*"]  # They import modules that other systems lack.

# No test may depend on how fast the machine is. Wine is slow; random search is for systems where tests run fast.
hypothesis.settings.register_profile(
    "threepipe",
    deadline=None,
    max_examples=20 if sys.platform == "win32" else 100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("threepipe")


def _no_kernel() -> str:
    """Return why this process cannot make adapters, or an empty text. Enters a user namespace if that helps."""
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


# Shells let background programs ignore Ctrl-C, and child processes that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_KERNEL = _no_kernel()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and NO_KERNEL:
        if os.environ.get("CI"):
            pytest.fail(f"kernel tests may not be skipped in CI: {NO_KERNEL}")
        pytest.skip(NO_KERNEL)


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a network namespace without a name that is removed after the test."""
    fresh = Network()
    yield fresh
    fresh.namespace.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder for the test. Pytest's own depends on the user's name, which is root in a user namespace."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check that the test closes every descriptor it opened."""
    before = _descriptors()
    yield
    if _descriptors() > before:
        gc.collect()  # Some belong to objects in cycles; a collection after every test would take long.
    assert _descriptors() <= before, "descriptors were left open"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
