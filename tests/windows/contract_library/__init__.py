"""Tests of the contract library: it behaves as Wintun does, by every rule of its header, with faults and misuse.

Every other test that uses the library relies on these. THREEPIPE_CONTRACT names a library that exists already:
so these tests run under AddressSanitizer, and on Windows with a library that was built elsewhere.
"""
