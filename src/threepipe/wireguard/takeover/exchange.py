"""The version of a takeover's exchange, and its limits of time."""

__all__ = ["CLOCKS_DIFFER", "SECONDS_TO_ANSWER", "SECONDS_TO_BEGIN", "SECONDS_TO_PREPARE", "VERSION"]

VERSION = 1
"""The version of the exchange, and of the layout of `state`. A process refuses another one."""

SECONDS_TO_ANSWER = 10.0
SECONDS_TO_PREPARE = 60.0  # The device works meanwhile.
SECONDS_TO_BEGIN = 5.0  # The device stands still meanwhile.
CLOCKS_DIFFER = 30.0  # Seconds; more than a message takes. Another time namespace has another clock.
