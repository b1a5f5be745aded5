"""The journal of a device: the next process undoes the deeds of a dead one, last first, and tells failures."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.waiting import come_true
from threepipe import platforms
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard.quick.journal import Action, Journal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no devices with journals")

ENTER = """
import json, os, subprocess, sys
from pathlib import Path
from threepipe.wireguard.quick.journal import Action, Journal
steps = json.loads(sys.argv[2])
journal = Journal("wg0", Path(sys.argv[1]), {kind: Action(kind, print) for kind, _ in steps})
entered = [journal.until_end(kind, what=what) for kind, what in steps]
for step in entered:
    step.__enter__()
"""
"""A program that enters deeds into the journal in a folder."""
WAIT = "print('entered', flush=True); sys.stdin.read()"
START = """
with journal.hold() as held:
    subprocess.Popen(["sh", "-c", "while ! [ -e $0/go ]; do sleep 0.05; done", sys.argv[1]], pass_fds=held)
    os._exit(9)
"""
DIE = "os._exit(9)"


class World:
    """The results of deeds, and a journal that undoes all but those in `stuck`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.undone: list[str] = []
        self.stuck: set[str] = set()

        self.actions = {
            "deed": Action("deed", self._undo),
            "here": Action("deed of this network", self._undo, everywhere=False),
            "once": Action("command", self._undo, again=False),
        }

    def journal(self, seconds: float = 0.0) -> Journal:
        return Journal("wg0", self.folder, self.actions, seconds)

    def adopted(self, journal: Journal) -> Journal:
        """Return the journal of another process that shares that one."""
        return Journal.adopted("wg0", self.folder, self.actions, [os.dup(number) for number in journal.descriptors])

    def _undo(self, hold: Callable[..., object], what: str) -> None:
        self.undone.append(what)
        if what in self.stuck:
            raise InvalidSetting(f"{what} is stuck")

    def command(self, what_next: str, *steps: tuple[str, str]) -> list[str]:
        """Return the command of a process that enters deeds into the journal, and then goes on with `what_next`."""
        return [sys.executable, "-c", ENTER + what_next, str(self.folder), json.dumps(steps)]

    def die_after(self, *steps: tuple[str, str]) -> None:
        """Enter deeds into the journal by a process that ends without undoing them."""
        assert subprocess.run(self.command(DIE, *steps)).returncode == 9

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "run")


def test_deeds_are_undone_last_first_and_the_files_vanish(world: World) -> None:
    with world.journal() as journal:
        with journal.until_end("deed", what="first"), journal.until_end("here", what="second"):
            assert world.undone == []
            assert world.files() == {"wg0.journal", "wg0.lock"}
            assert (world.folder / "wg0.journal").stat().st_mode & 0o777 == 0o600
        assert world.undone == ["second", "first"]
    assert world.files() == set()


def test_what_a_dead_process_left_is_undone_by_the_next(world: World) -> None:
    command = world.command(WAIT, ("deed", "of the dead"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"entered\n"
        with pytest.raises(EndpointError, match="a device of that name is running"):
            world.journal()
        with pytest.raises(EndpointError, match="still running after 0 s"):
            world.journal(0.01)
        process.kill()
    with world.journal() as journal:
        assert journal.unfinished == ["deed"]
        assert journal.recover() == (["deed"], [])
        assert world.undone == ["of the dead"]
        assert journal.recover() == ([], [])
    assert world.files() == set()


def test_the_next_process_waits_for_programs_of_a_dead_one(world: World) -> None:
    assert subprocess.run(world.command(START, ("deed", "of the dead"))).returncode == 9
    recovered = threading.Event()

    def recover() -> None:
        with world.journal() as journal:
            journal.recover()
        recovered.set()

    thread = threading.Thread(target=recover)
    thread.start()
    assert come_true((world.folder / "wg0.lock").exists)
    assert not recovered.wait(0.3)
    assert world.undone == []
    (world.folder / "go").touch()
    thread.join(20)
    assert recovered.is_set()
    assert world.undone == ["of the dead"]


def test_a_program_left_in_the_background_is_not_waited_for(world: World) -> None:
    with world.journal() as journal, journal.until_end("deed", what="first"):
        with journal.hold() as held:
            background = subprocess.Popen(["sleep", "50"], pass_fds=held)
        try:
            with (world.folder / "wg0.journal").open() as another:
                assert platforms.try_lock(another.fileno())
        finally:
            background.kill()
            background.wait()


def test_a_deed_that_cannot_be_undone_stays_for_another_try(world: World) -> None:
    world.stuck = {"second"}
    with world.journal() as journal:
        with journal.until_end("deed", what="first"), journal.until_end("deed", what="second"):
            pass
        assert journal.failures == ["deed: second is stuck"]
    assert world.undone == ["second", "first"]
    with world.journal() as journal:
        assert journal.recover() == ([], ["deed: second is stuck"])
        assert journal.unfinished == ["deed"]
        world.stuck = set()
        assert journal.recover() == (["deed"], [])
    assert world.undone == ["second", "first", "second", "second"]
    assert world.files() == set()


def test_a_command_that_fails_is_told_once_and_not_run_again(world: World) -> None:
    world.stuck = {"command"}
    with world.journal() as journal:
        with journal.until_end("once", what="command"):
            pass
        journal.leave_failures()
    with world.journal() as journal:
        assert journal.recover() == ([], ["command: command is stuck"])
    assert world.undone == ["command"]
    assert world.files() == set()


def test_deeds_of_another_network_are_told_and_left_alone(world: World) -> None:
    world.die_after(("deed", "everywhere"), ("here", "there"))
    path = world.folder / "wg0.journal"
    path.write_text(path.read_text().replace('"scope": "', '"scope": "another '))
    with world.journal() as journal:
        undone, told = journal.recover()
    assert (undone, world.undone) == (["deed"], ["everywhere"])
    assert told == ["deed of this network: left in another network namespace, if that still exists"]
    assert world.files() == set()


def test_a_line_that_was_not_written_to_its_end_is_ignored(world: World) -> None:
    world.die_after(("deed", "first"))
    with (world.folder / "wg0.journal").open("a") as file:
        file.write('{"undo": "deed", "wh')
    with world.journal() as journal:
        assert journal.recover() == (["deed"], [])
    assert world.undone == ["first"]


@pytest.mark.parametrize("content", ["no json\n", '{"undo": "deed of tomorrow"}\n', "[1]\n", "7\n"])
def test_a_damaged_journal_is_kept_and_reported(world: World, content: str) -> None:
    world.folder.mkdir()
    path = world.folder / "wg0.journal"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(EndpointError, match="is damaged or from another version"):
        world.journal()
    assert path.read_text() == content
    assert world.files() == {"wg0.journal"}


def test_a_journal_that_others_can_write_is_refused(world: World) -> None:
    world.folder.mkdir()
    path = world.folder / "wg0.journal"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(EndpointError, match="belongs to another user"):
        world.journal()
    path.unlink()
    path.symlink_to(world.folder / "elsewhere")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        world.journal()


def test_a_deed_does_not_begin_if_the_journal_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.journal() as journal:
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, text: write(file, text[:5]))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), journal.until_end("deed", what="first"):
            pytest.fail("the deed began")
        monkeypatch.undo()
        with journal.until_end("deed", what="second"):
            pass
    assert world.undone == ["second"]
    assert world.files() == set()


def enter_shared(world: World) -> tuple[Journal, Journal]:
    """Return a journal with three deeds that was given away, and that of the process that has adopted it."""
    old = world.journal()
    with ExitStack() as stack:
        for kind, what in (("deed", "first"), ("here", "second"), ("deed", "third")):
            stack.enter_context(old.until_end(kind, what=what))
        new = world.adopted(old)
        old.given = True
    old.close()
    assert world.undone == []
    return old, new


def test_an_adopted_journal_undoes_the_deeds_of_the_process_that_gave_it_away(world: World) -> None:
    _, new = enter_shared(world)
    new.given = False
    with pytest.raises(EndpointError, match="running"):
        world.journal()
    with new, new.adopted_until_end(("here",)), new.adopted_until_end(("deed",)), new.until_end("once", what="own"):
        pass
    assert world.undone == ["own", "third", "first", "second"]
    assert world.files() == set()


def test_an_adopted_journal_that_is_another_processs_undoes_nothing(world: World) -> None:
    _, new = enter_shared(world)
    with new, new.adopted_until_end(("deed", "here")):
        pass
    assert world.undone == []
    with world.journal() as journal:  # Both have ended.
        undone, _ = journal.recover()
    assert len(undone) == 3
    assert world.undone == ["third", "second", "first"]
