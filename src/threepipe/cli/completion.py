"""`threepipe completion`: prints the script by which a shell completes commands, and answers its questions.

The script runs `threepipe` with the line up to the cursor in the variable _THREEPIPE_COMPLETE. The answer has one line
for each completion of the last word: the word, and perhaps a tab and a description. Exit status 3 means the names of
files.
"""

from enum import StrEnum
from importlib.resources import files
from typing import Annotated, Any

import typer
from typer._click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from threepipe.cli.completers import FILES
from threepipe.errors import ThreepipeError

__all__ = ["answer", "completion"]

_FILE_NAMES = 3


class Shell(StrEnum):
    """A shell with a script in the folder `shells`."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)]) -> None:
    r"""Print the script by which a shell completes commands, options, adapters and addresses.

    Write it where the shell looks for such scripts, and start a new shell.
    zsh looks in the folders in fpath, to which you can add one of yours.

    Examples:
      threepipe completion bash > \
        ~/.local/share/bash-completion/completions/threepipe
      threepipe completion zsh > "${fpath[1]}/_threepipe"
      threepipe completion fish > ~/.config/fish/completions/threepipe.fish
    """
    script = files("threepipe.cli").joinpath("shells", f"threepipe.{shell}").read_text(encoding="utf-8")
    typer.echo(script, nl=False)


def answer(command: Any, line: str) -> int:
    """Print the completions of the last word of `line`, and return the exit status.

    Leave out names that the system refuses to tell: a complaint would disturb the user's line.
    """
    try:
        asked = _Line(command, line)
        found = asked.get_completions(*asked.get_completion_args())
    except (ThreepipeError, OSError):
        return 0
    if any(item.help == FILES or item.type == "file" for item in found):
        return _FILE_NAMES
    for item in found:
        if item.value.isprintable():
            typer.echo(asked.format_completion(item))
    return 0


class _Line(ShellComplete):
    """A line of the shell up to its cursor."""

    name = "line"
    source_template = ""  # The scripts are files of their own.

    def source_vars(self) -> dict[str, Any]:
        return {}

    def __init__(self, command: Any, line: str) -> None:
        super().__init__(command, {}, "threepipe", "")
        self._line = line

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the finished words after the program's name, and the unfinished one."""
        words = split_arg_string(self._line)[1:]
        unfinished = words.pop() if words and not self._line[-1].isspace() else ""
        return words, unfinished

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{' '.join((item.help or '').split())}".rstrip("\t")
