"""The version of a device's takeover, and a limit of its clocks."""

__all__ = ["CLOCKS_DIFFER", "VERSION"]

VERSION = 1
"""The version of the exchange, and of the layout of `state`. A process refuses another one."""

CLOCKS_DIFFER = 30.0  # Seconds; more than a message takes. Another time namespace has another clock.
