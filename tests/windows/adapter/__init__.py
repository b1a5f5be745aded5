"""Tests of adapters and sessions of the Windows platform, on the contract library."""
