"""The library that compiles filters, which not every system has."""

import sys
from ctypes.util import find_library

import pytest

__all__ = ["needs_libpcap"]

needs_libpcap = pytest.mark.skipif(
    sys.platform == "win32" or find_library("pcap") is None,  # Wine has a wpcap.dll that compiles no filters.
    reason="libpcap is not there; install it",
)
