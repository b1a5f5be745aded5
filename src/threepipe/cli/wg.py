"""`threepipe wg`: brings WireGuard devices up and down, shows and changes them, and makes keys.

Each command calls `threepipe.wireguard` and prints the result.
"""

import errno
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from threepipe.cli import wg_set
from threepipe.cli.completers import configs, device_fields, device_names
from threepipe.cli.options import Metrics
from threepipe.cli.output import (
    Quiet,
    Verbose,
    complain,
    log_level,
    print_json,
    print_table,
    show_log,
    warn_of_exposed_output,
)
from threepipe.cli.wg_exec import exec_
from threepipe.cli.wg_invite import invite
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.settings import unknown_name

if TYPE_CHECKING:
    from threepipe.net.connect import HostPort
    from threepipe.wireguard.settings import Status

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Bring WireGuard devices up and down, show and change them, and make keys."
)

_DOWN_TIMEOUT = 60.0  # Seconds for a device to end, including the commands of its file.

Which = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="A file NAME.conf, or NAME for /etc/wireguard/NAME.conf.", autocompletion=configs
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def up(
    config: Which,
    daemon: Annotated[bool, typer.Option("--daemon", help="Continue in the background once the device is up.")] = False,
    no_offload: Annotated[
        bool, typer.Option("--no-offload", help="Pass no superpackets, on which some kernels and drivers fail.")
    ] = False,
    takeover: Annotated[
        bool,
        typer.Option("--takeover", help="Go on with the running device in place of its process, which ends then."),
    ] = False,
    metrics: Metrics = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring up the device of a wg-quick(8) file, until Ctrl-C, `threepipe wg down`, or the removal of its adapter.

    Addresses, routes, DNS and everything else are undone at the end. If the
    device was killed before, its leavings are undone first.

    With --takeover a new version of threepipe takes the device from the process
    that runs it. No packet is lost, no handshake is needed, and the settings
    stay those of the running device. If that fails, the other process goes on.
    """
    from threepipe.net.connect import parse_host_port
    from threepipe.wireguard.quick.config import config_path

    show_log(log_level(verbose, quiet))
    path = config_path(config)
    served = None if metrics is None else parse_host_port(metrics, listening=True)
    if daemon:
        from threepipe.wireguard.quick.daemon import in_background

        raise typer.Exit(in_background(lambda ready: _run(path, ready, not no_offload, takeover, served), path.stem))
    from threepipe.wireguard.quick.ending import Ended

    def ready() -> None:
        if not quiet:
            typer.echo(f"{path.stem} is up; Ctrl-C takes it down", err=True)

    try:
        _run(path, ready, not no_offload, takeover, served)
    except Ended as ended:
        complain(f"{path.stem} was ended by a signal before it was up")
        raise typer.Exit(ended.status) from None


def _run(path: Path, ready: Callable[[], None], offload: bool, takeover: bool, metrics: "HostPort | None") -> None:
    from threepipe.wireguard.quick.up import run, take_over

    if takeover:
        take_over(path.stem, ready, metrics)
    else:
        run(path, ready, offload, metrics)


@app.command()
def down(config: Which) -> None:
    """Take a device down, and wait until everything it set up is undone, also if it was killed.

    The exit status is 1 if something failed.
    """
    from threepipe.wireguard.quick.config import config_path
    from threepipe.wireguard.quick.undo import finish, is_known
    from threepipe.wireguard.uapi_socket import names, take_down

    name = config_path(config).stem
    listens, ours = name in names(), is_known(name)
    if not listens and not ours:
        raise EndpointError(None, f"no device is named {name}; threepipe wg show lists the devices")
    deadline = time.monotonic() + _DOWN_TIMEOUT
    ended = not listens or take_down(name, _DOWN_TIMEOUT)
    while ended and not ours and _exists(name):
        ended = time.monotonic() < deadline
        time.sleep(0.02)  # Other implementations stop listening before their adapter goes.
    if not ended:
        raise EndpointError(None, f"{name} was asked to stop but is still running after {_DOWN_TIMEOUT:.0f} s")
    if failures := finish(name, max(deadline - time.monotonic(), 0)) if ours else []:
        for failure in failures:
            complain(failure)
        raise typer.Exit(1)


def _exists(name: str) -> bool:
    from threepipe.adapter import adapters

    return any(info.name == name for info in adapters())


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="The device; all of them by default; interfaces for their names alone.", autocompletion=device_names
        ),
    ] = "all",
    field: Annotated[
        str | None,
        typer.Argument(
            help="Print only this field, for scripts, as wg(8) does.",
            show_default=False,
            autocompletion=device_fields,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show devices of any userspace implementation, and their peers. Secrets stay hidden without FIELD.

    The exit status is 1 if a device cannot be asked; the others are shown.

    Fields: public-key, private-key, listen-port, fwmark, peers, preshared-keys,
    endpoints, allowed-ips, latest-handshakes, persistent-keepalive, transfer,
    dump, and link-locals, the peers' addresses in a mesh.
    """
    from threepipe.wireguard.quick.showing import FIELDS
    from threepipe.wireguard.uapi_socket import status_of

    if field is not None and (json or name == "interfaces"):
        raise typer.BadParameter("a field is of devices, and has no JSON; drop one of the two", param_hint="FIELD")
    if field is not None and field not in FIELDS:
        raise typer.BadParameter(str(unknown_name("field", field, FIELDS)), param_hint="FIELD")
    statuses, failed = _all() if name in ("all", "interfaces") else ({name: status_of(name)}, False)
    if name == "interfaces":
        typer.echo(" ".join(statuses), nl=bool(statuses))
    elif field is not None:
        _print_field(statuses, field, with_name=name == "all")
    elif json:
        print_json({each: _public(status) for each, status in statuses.items()})
    else:
        for each, status in statuses.items():
            _print_status(each, _public(status))
    if failed:
        raise typer.Exit(1)


def _print_field(statuses: "dict[str, Status]", field: str, *, with_name: bool) -> None:
    """Print the lines of a field, which begin with the device's name if `with_name`."""
    from threepipe.wireguard.quick.showing import SECRET, rows

    if field in SECRET:
        warn_of_exposed_output()
    for name, status in statuses.items():
        for row in rows(status, field):
            typer.echo("\t".join([name, *row] if with_name else row))


def _print_status(name: str, device: dict[str, object]) -> None:
    peers = device.pop("peers")
    assert isinstance(peers, list)
    for table in ({"interface": name, **device}, *peers):
        print_table(None, [(key.replace("_", " "), _text(value)) for key, value in table.items()])
        typer.echo()


def _all() -> "tuple[dict[str, Status], bool]":
    """Return the status of every device that answers, and True if others failed, which it reports; skip stale files."""
    from threepipe.wireguard.uapi_socket import names, status_of

    found, failed = {}, False
    for name in names():
        try:
            found[name] = status_of(name)
        except EndpointError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                complain(str(error.strerror))
                failed = True
    return found, failed


def _public(status: "Status") -> dict[str, object]:
    """Return the status without secrets."""
    from threepipe.net.connect import HostPort
    from threepipe.wireguard.noise import Identity
    from threepipe.wireguard.peer_endpoint import with_zone_name
    from threepipe.wireguard.values import key_to_text

    return {
        "public_key": key_to_text(Identity(status.private_key).public) if any(status.private_key) else None,
        "listen_port": status.listen_port,
        "fwmark": status.fwmark,
        "peers": [
            {
                "peer": key_to_text(peer.public_key),
                "preshared_key": any(peer.preshared_key),
                "endpoint": str(HostPort(*with_zone_name(peer.endpoint))) if peer.endpoint else None,
                "allowed_ips": [str(network) for network in peer.allowed_ips],
                "latest_handshake": peer.last_handshake or None,
                "received_bytes": peer.rx_bytes,
                "sent_bytes": peer.tx_bytes,
                "persistent_keepalive": peer.persistent_keepalive,
            }
            for peer in status.peers
        ],
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "(hidden)" if value else "none"
    if isinstance(value, float):
        return f"{max(0, time.time() - value):.0f} seconds ago"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


@app.command()
def genkey() -> None:
    """Print a new private key."""
    from threepipe.wireguard.keys import generate_key

    _print_secret(generate_key())


@app.command()
def genpsk() -> None:
    """Print a new preshared key."""
    from threepipe.wireguard.keys import generate_preshared_key

    _print_secret(generate_preshared_key())


def _print_secret(secret: bytes) -> None:
    """Print a key; warn if it is written to a file that every user can open, as wg(8) does."""
    warn_of_exposed_output()
    typer.echo(b64encode(secret).decode())


@app.command()
def pubkey() -> None:
    """Read a private key from standard input and print its public key."""
    from threepipe.wireguard import key_to_text, public_key

    if sys.stdin.isatty():
        raise InvalidSetting("no private key on standard input; run: threepipe wg pubkey < FILE")
    typer.echo(key_to_text(public_key(sys.stdin.read())))


for command, function in wg_set.COMMANDS.items():
    # What follows the name is never an option: a network to remove begins with a minus.
    app.command(command, context_settings={"allow_interspersed_args": command != "set"})(function)
app.command()(invite)
app.command("exec", context_settings={"allow_interspersed_args": False})(exec_)
