"""SECURITY.md, and the numbers of docs/wireguard.md: they agree with the code."""

import re
from pathlib import Path

import pytest

from threepipe.core.transport import REJECT_AFTER_MESSAGES, WINDOW
from threepipe.wireguard.constants import (
    COOKIE_LIFETIME,
    JITTER,
    MAX_PER_SOURCE,
    MAX_STAGED,
    MIN_INITIATION_INTERVAL,
    REKEY_AFTER_MESSAGES,
    UNDER_LOAD,
    Timing,
)

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "SECURITY.md"
TIMING = Timing()

NUMBERS = {
    "REKEY_AFTER_TIME, REJECT_AFTER_TIME": f"{TIMING.rekey_after:.0f} s, {TIMING.reject_after:.0f} s",
    "REKEY_TIMEOUT, KEEPALIVE_TIMEOUT": f"{TIMING.rekey_timeout:.0f} s, {TIMING.keepalive:.0f} s",
    "REKEY_ATTEMPT_TIME": f"{TIMING.rekey_attempt:.0f} s",
    "jitter of an attempt, at most": f"{JITTER * 1000:.0f} ms",
    "REKEY_AFTER_MESSAGES": f"2^{REKEY_AFTER_MESSAGES.bit_length() - 1}",
    "REJECT_AFTER_MESSAGES": f"2^64 - {2**64 - REJECT_AFTER_MESSAGES}",
    "replay window, in messages": f"{WINDOW}",
    "initiations of one peer that are accepted": f"{1 / MIN_INITIATION_INTERVAL:.0f}/s",
    "age of a cookie, and of its secret": f"{COOKIE_LIFETIME:.0f} s",
    "handshakes after which cookies are required": f"more than {UNDER_LOAD} in a second",
    "handshakes of one address under load": f"{MAX_PER_SOURCE} in each second",
    "packets of a peer that wait for a handshake": f"{MAX_STAGED}, each up to 64 KiB",
}


@pytest.mark.parametrize("row", NUMBERS)
def test_a_number_of_the_page_is_that_of_the_code(row: str) -> None:
    page = (ROOT / "docs" / "wireguard.md").read_text()
    (told,) = re.findall(rf"^\| {re.escape(row)} \| (.*?) \|", page, re.MULTILINE)
    assert told == NUMBERS[row]


def test_unsafe_code_is_in_the_files_of_the_page_alone() -> None:
    sources = [path for folder in ("src", "core") for path in (ROOT / "native" / folder).rglob("*.rs")]
    allowed = {path.relative_to(ROOT).as_posix() for path in sources if "allow(unsafe_code)" in path.read_text()}
    assert allowed == set(re.findall(r"^\| `(native/.*?)` \|", SECURITY.read_text(), re.MULTILINE))


def test_the_lints_that_fence_unsafe_code_are_on_for_both_crates() -> None:
    root, core = ((ROOT / "native" / name).read_text() for name in ("Cargo.toml", "core/Cargo.toml"))
    assert 'unsafe_code = "deny"' in root
    assert 'undocumented_unsafe_blocks = "deny"' in root
    assert all("[lints]\nworkspace = true" in text for text in (root, core))
