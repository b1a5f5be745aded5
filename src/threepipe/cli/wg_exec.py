"""`threepipe wg exec`: a program that sees only the tunnel of a file."""

from typing import Annotated

import typer

from threepipe.cli.completers import configs, files

__all__ = ["exec_"]


def exec_(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="A file NAME.conf, or NAME for /etc/wireguard/NAME.conf.", autocompletion=configs
        ),
    ],
    program: Annotated[
        list[str],
        typer.Argument(
            metavar="PROGRAM [ARGUMENTS]...", help="The program to run.", show_default=False, autocompletion=files
        ),
    ],
    no_offload: Annotated[
        bool, typer.Option("--no-offload", help="Pass no superpackets, on which some kernels and drivers fail.")
    ] = False,
) -> None:
    """Run a program that sees only the tunnel of a wg-quick(8) file. Needs no root.

    The program and its children have the addresses, routes and DNS servers
    of the file, and no other network. They end together. Nothing changes for
    other programs.

    Example:
      threepipe wg exec ./office.conf -- curl http://intranet.example.org/
    """
    from threepipe import platforms
    from threepipe.wireguard.quick.config import config_path
    from threepipe.wireguard.quick.enclosed import run_enclosed

    words = program[1:] if program[0] == "--" else program
    if not words:
        raise typer.BadParameter("give a program after --", param_hint="PROGRAM")
    status = run_enclosed(config_path(config), words, not no_offload)
    if status < 0:
        platforms.end_by(-status)
    raise typer.Exit(status)
