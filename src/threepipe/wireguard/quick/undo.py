"""The kinds of deeds in a device's journal, their undoing, and the journal of a dead process."""

import logging
from collections.abc import Sequence
from pathlib import Path

from threepipe import platforms
from threepipe.platforms.files import write_atomically
from threepipe.wireguard.quick.commands import Hold, call_all
from threepipe.wireguard.quick.dns import remove_key, remove_proposal, remove_record, revert
from threepipe.wireguard.quick.journal import Action, Journal
from threepipe.wireguard.quick.nft import remove_table
from threepipe.wireguard.uapi_socket import FOLDER, make_folder, takeover_path

__all__ = ["ACTIONS", "adopt_journal", "finish", "is_known", "open_journal", "recover"]

log = logging.getLogger("threepipe")


def _run_commands(hold: Hold, name: str, commands: list[str]) -> None:
    call_all(commands, name, hold)


def _remove_rules(hold: Hold, rules: list[dict[str, int]]) -> None:
    platforms.undivert(rules)


def _remove_bypass(hold: Hold, addresses: list[str]) -> None:
    platforms.remove_bypass(addresses)


def _save(hold: Hold, path: str, text: str) -> None:
    write_atomically(Path(path), text.encode(), 0o600)  # For root only, as it has keys.


ACTIONS = {
    "pre_down": Action("PreDown", _run_commands, everywhere=False, again=False),
    "post_down": Action("PostDown", _run_commands, everywhere=False, again=False),
    "dns": Action("DNS", remove_record),
    "resolved": Action("DNS", revert, everywhere=False),
    "scutil": Action("DNS", remove_key),
    "nameserver": Action("DNS", remove_proposal, everywhere=False),
    "bypass": Action("routes past the tunnel", _remove_bypass, everywhere=False),
    "nft": Action("packet filter", remove_table, everywhere=False),
    "rules": Action("routing rules", _remove_rules, everywhere=False),
    "save": Action("SaveConfig", _save),
}
"""Each kind, by its name in the journal. Everything else that a device sets up goes with its adapter.

Where the adapter of a killed process stays, it is removed before these are undone.
"""


def open_journal(name: str, seconds: float = 0.0, folder: Path = FOLDER) -> Journal:
    """Return the journal of the device `name`; wait up to `seconds` for its process. Raises `EndpointError`."""
    make_folder(folder)
    return Journal(name, folder, ACTIONS, seconds)


def adopt_journal(name: str, descriptors: Sequence[int], folder: Path = FOLDER) -> Journal:
    """Return the journal of another process that shares its descriptors. Raises `EndpointError`."""
    return Journal.adopted(name, folder, ACTIONS, descriptors)


def recover(journal: Journal, name: str, folder: Path = FOLDER) -> list[str]:
    """Undo the deeds of a dead process, and log that. Return texts about failures, then or now."""
    takeover_path(name, folder).unlink(missing_ok=True)
    platforms.remove_leftovers()
    undone, failed = journal.recover()
    if undone:
        log.warning(f"{name} did not end in order; undone now: {', '.join(undone)}")
    return failed


def is_known(name: str, folder: Path = FOLDER) -> bool:
    """Return True if the device `name` has a journal, because its process runs, or was killed."""
    return Journal.exists(name, folder)


def finish(name: str, seconds: float, folder: Path = FOLDER) -> list[str]:
    """Wait up to `seconds` until the process of the device has ended, and undo its remaining deeds.

    Returns texts about what failed, then or now. Raises `EndpointError`.
    """
    with open_journal(name, seconds, folder) as journal:
        return recover(journal, name, folder)
