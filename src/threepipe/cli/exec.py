"""`threepipe exec`: becomes a program that has an adapter of its own."""

from typing import Annotated

import typer

from threepipe.cli.completers import files, tun_options

__all__ = ["exec_"]


def exec_(
    program: Annotated[
        list[str],
        typer.Argument(
            metavar="PROGRAM [ARGUMENTS]...",
            help="The program to run; {fd} becomes the number of the descriptor.",
            show_default=False,
            autocompletion=files,
        ),
    ],
    tun: Annotated[
        str,
        typer.Option(
            metavar="NAME[,OPTION]...",
            help="The adapter, as in threepipe pipe's tun:NAME.",
            show_default=False,
            autocompletion=tun_options,
        ),
    ],
    header: Annotated[
        str,
        typer.Option(
            metavar="FORM", help="Bytes before each packet: none, vnet (10, superpackets) or packet-information (4)."
        ),
    ] = "none",
    user: Annotated[
        str | None,
        typer.Option(
            metavar="USER", help="Run it as this user, by name or id, without privileges.", show_default=False
        ),
    ] = None,
    keep_net_admin: Annotated[
        bool, typer.Option("--keep-net-admin", help="Leave it the capability CAP_NET_ADMIN.")
    ] = False,
) -> None:
    r"""Run a program with an adapter of its own, which it gets as a descriptor.

    The adapter is made and set up, privileges are dropped, and the program
    takes the place of this process. The adapter goes with the program. The
    number of the descriptor is in the variables WG_TUN_FD, VPNFD and
    XRAY_TUN_FD (bare packets), and by systemd's convention in LISTEN_FDS.

    Examples:
      threepipe exec --tun tp0,address=10.6.7.1/24 --user nobody -- PROGRAM
      threepipe exec --tun wg0 --header vnet --user nobody --keep-net-admin \
        -- wireguard-go -f wg0
      threepipe exec --tun tp0 -- PROGRAM --descriptor {fd}
    """
    from threepipe.endpoints.handover import Order

    Order.parse(tun, program, header, user, keep_net_admin).run()
