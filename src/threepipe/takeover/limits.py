"""The time limits of a takeover, in seconds."""

__all__ = ["SECONDS_TO_ANSWER", "SECONDS_TO_BEGIN", "SECONDS_TO_PREPARE"]

SECONDS_TO_ANSWER = 10.0
SECONDS_TO_PREPARE = 60.0  # The old process works meanwhile.
SECONDS_TO_BEGIN = 5.0  # It stands still meanwhile.
