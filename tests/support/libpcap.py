"""The library that compiles filters, which not every system has."""

from ctypes.util import find_library

import pytest

__all__ = ["needs_libpcap"]

needs_libpcap = pytest.mark.skipif(
    find_library("pcap") is None and find_library("wpcap") is None, reason="libpcap is not there; install it"
)
