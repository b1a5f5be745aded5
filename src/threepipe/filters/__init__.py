"""Filters: endpoints around endpoints, each of which does one thing to the packets that come through it."""
