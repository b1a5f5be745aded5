"""Filters: endpoints that wrap another endpoint and change the packets received from it."""
