"""Capture: packets to and from files, and looking at those that go through a pipe or an adapter."""
