"""`threepipe mesh`: joins a network of many nodes, shows it, leaves it, and signs its nodes.

Each command calls `threepipe.mesh` and prints the result.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threepipe.cli.completers import files, mesh_interfaces
from threepipe.cli.options import Metrics
from threepipe.cli.output import Quiet, Verbose, complain, log_level, print_json, print_table, show_log

if TYPE_CHECKING:
    from threepipe.mesh import Joining, Store

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Join a network of many nodes, whose WireGuard devices learn of each other by a bus."
)

_DAY = 86_400_000  # Milliseconds.


def _path(metavar: str, help: str) -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False, autocompletion=files)


Interface = Annotated[
    str, typer.Option(metavar="NAME", help="The interface of the mesh.", autocompletion=mesh_interfaces)
]
State = Annotated[
    Path | None,
    _path(
        "FOLDER",
        "The folder with the node's keys, certificate and records; by default /var/lib/threepipe/mesh/INTERFACE.",
    ),
]
Bus = Annotated[
    list[str],
    typer.Option(metavar="URL", help="A server of NATS: nats://HOST:PORT or tls://HOST:PORT. Repeatable."),
]
Prefix = Annotated[
    list[str],
    typer.Option(
        metavar="NETWORK", help="A network of the mesh; the first IPv6 one has the nodes' addresses. Repeatable."
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NODE", help="The node's name, as its certificate has it.", show_default=False)
]
CertificateFile = Annotated[
    Path | None, _path("FILE", "The output of threepipe mesh sign. The node keeps it, so give it only once.")
]
Bucket = Annotated[str, typer.Option(metavar="BUCKET", help="The bucket with the records of this mesh.")]
Credentials = Annotated[
    Path | None,
    _path("FILE", "The node's credentials on the bus: .creds, the seed of an NKey, USER:PASSWORD or a token."),
]
TlsCa = Annotated[Path | None, _path("FILE", "The authorities of the bus's certificate, in place of the system's.")]
TlsCert = Annotated[Path | None, _path("FILE", "This node's certificate for TLS.")]
TlsKey = Annotated[Path | None, _path("FILE", "The key of that certificate.")]
Port = Annotated[int, typer.Option(metavar="PORT", min=0, max=0xFFFF, help="The UDP port of WireGuard.")]
Endpoint = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="An endpoint of this node, besides its own addresses. Repeatable."),
]
Expiry = Annotated[
    float, typer.Option(metavar="SECONDS", help="The others forget this node if they hear nothing of it for so long.")
]
Keepalive = Annotated[
    int, typer.Option(metavar="SECONDS", help="Persistent keepalive of all peers, for NATs; 0 for off.")
]
Mtu = Annotated[int, typer.Option(metavar="BYTES", help="The MTU of the interface, the same on all nodes.")]
Daemon = Annotated[bool, typer.Option("--daemon", help="Continue in the background once the node is up.")]


@app.command()
def join(
    bus: Bus,
    prefix: Prefix,
    name: Name = None,
    interface: Interface = "mesh0",
    certificate: CertificateFile = None,
    bucket: Bucket = "mesh",
    credentials: Credentials = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    port: Port = 51820,
    endpoint: Endpoint = None,
    expiry: Expiry = 300,
    keepalive: Keepalive = 25,
    mtu: Mtu = 1420,
    state: State = None,
    metrics: Metrics = None,
    daemon: Daemon = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Join a mesh, until Ctrl-C, `threepipe mesh leave`, or the removal of the interface.

    Every node of the network becomes a peer, and has a route. Routes of
    babeld, BIRD or FRR on the interface come before these. Nodes need a
    certificate of the same authority. While the bus is away, the mesh goes
    on as it is. See docs/mesh.md.

    Examples:
      threepipe mesh request --name gw > gw.request    # for threepipe mesh sign
      threepipe mesh join --bus tls://bus.example.org --prefix fd12:3456::/48
    """
    from threepipe.mesh import Joining, NatsBus, Secrets
    from threepipe.net.connect import parse_host_port
    from threepipe.wireguard.values import parse_networks, to_host_and_port

    show_log(log_level(verbose, quiet, logging.INFO))
    joining = Joining(
        _store(_folder(state, interface), certificate),
        NatsBus(bus, bucket, Secrets(credentials, tls_ca, tls_cert, tls_key)),
        parse_networks(prefix),
        name,
        interface,
        port,
        mtu,
        keepalive,
        expiry,
        [to_host_and_port(each) for each in endpoint or ()],
        None if metrics is None else parse_host_port(metrics, listening=True),
    )
    joining.check()
    _stay(joining, daemon, quiet)


def _store(folder: Path, certificate: Path | None) -> "Store":
    """Return the state of the node, with a new certificate if there is a file of one."""
    from threepipe.mesh import Store
    from threepipe.mesh.store import parse_certificate

    store = Store(folder)
    if certificate is not None:
        text = certificate.read_text()
        parse_certificate(text, certificate)
        store.put_certificate(text)
    return store


def _stay(joining: "Joining", daemon: bool, quiet: bool) -> None:
    interface = joining.interface
    if daemon:
        from threepipe.wireguard.quick.daemon import in_background

        raise typer.Exit(in_background(lambda ready: _join(joining, ready), interface))

    def ready() -> None:
        if not quiet:
            typer.echo(
                f"{interface} is up; threepipe mesh leave ends it, and Ctrl-C does without telling the others", err=True
            )

    _join(joining, ready)


def _join(joining: "Joining", ready: Callable[[], None]) -> None:
    from threepipe.mesh import join
    from threepipe.wireguard.quick.ending import Ended

    try:
        join(joining, lambda agent: ready())
    except Ended as ended:
        raise typer.Exit(ended.status) from None


def _folder(state: Path | None, interface: str) -> Path:
    from threepipe.mesh.joining import state_folder
    from threepipe.wireguard.settings import check_device_name

    return state or state_folder(check_device_name(interface))


@app.command()
def status(
    interface: Interface = "mesh0",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show the nodes of the mesh, with their next hops, round trips and handshakes.

    Nodes without a recent handshake are not probed, and have no round trip.
    """
    from threepipe.mesh.control import ask

    found = ask(interface, "status")
    if json:
        print_json(found)
        return
    rows = [
        ("node", found["name"] if found["member"] else f"{found['name']} (not a member; see the log)"),
        ("address", found["address"]),
        ("bus", "connected" if found["bus"] else "away; the mesh stays as it is"),
        ("endpoints", ", ".join(found["endpoints"]) or "none"),
        ("prefixes", ", ".join(found["prefixes"]) or "none"),
    ]
    if found["refused"]:
        refused = ", ".join(f"{count} {kind}" for kind, count in found["refused"].items())
        rows.append(("refused records", refused))
    print_table(None, rows)
    typer.echo()
    print_table(
        ("node", "address", "next hop", "endpoint", "round trip", "handshake", "prefixes"),
        [_row(node) for node in found["nodes"]],
    )


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    hop, age, trip = node["next_hop"], node["handshake_age"], node["round_trip"]
    return (
        node["name"],
        node["address"],
        "none" if hop is None else "direct" if hop == node["name"] else hop,
        node["endpoint"] or "none",
        "none" if trip is None else f"{1000 * trip:.1f} ms",
        "none" if age is None else f"{age:.0f} s ago",
        ", ".join(node["prefixes"]),
    )


@app.command()
def leave(interface: Interface = "mesh0") -> None:
    """Leave the mesh: tell the other nodes, end the agent, and wait until the interface is gone.

    The keys and the certificate stay, so that the node can join again.
    """
    from threepipe.mesh.control import ask

    if warning := ask(interface, "leave")["warning"]:
        complain(warning)


@app.command()
def authority(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file for the key.", autocompletion=files)],
) -> None:
    """Make the key of a network's authority, which signs its nodes. Print its public key.

    Whoever has the file can add nodes. Keep it away from the nodes and from
    the bus.
    """
    from threepipe.mesh import make_authority
    from threepipe.wireguard.values import key_to_text

    typer.echo(key_to_text(make_authority(file)))


@app.command()
def request(
    name: Annotated[str, typer.Option(metavar="NODE", help="The node's name: a-z, 0-9 and -.")],
    interface: Interface = "mesh0",
    state: State = None,
) -> None:
    """Print the request for the authority to sign: the node's name and its public keys.

    The first request makes the keys. The private ones stay in the folder of
    the node.
    """
    from threepipe.mesh import Store
    from threepipe.mesh.records import check_node_name

    typer.echo(Store(_folder(state, interface)).keys().request(check_node_name(name)))


@app.command()
def sign(
    key: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file from threepipe mesh authority.", autocompletion=files),
    ],
    request: Annotated[
        Path,
        typer.Argument(metavar="REQUEST", help="The file with the request; - for input.", autocompletion=files),
    ],
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK", help="A network that the node may announce, besides its own address. Repeatable."
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, help="The days for which the certificate is valid.")
    ] = 365,
) -> None:
    """Sign a node's request, and print its certificate, which has no secrets.

    A newer certificate for the same name replaces the older one, also if the
    keys are others.
    """
    from threepipe.mesh import Certificate, Request, read_authority
    from threepipe.mesh.records import public_part
    from threepipe.wireguard.values import key_to_text, parse_networks

    seed = read_authority(key)
    text = typer.get_text_stream("stdin").read() if str(request) == "-" else request.read_text()
    now = time.time_ns() // 1_000_000
    made = Certificate.issue(seed, Request.parse(text), parse_networks(prefix or ()), now, now + days * _DAY)
    typer.echo(f"{made.text}\n{key_to_text(public_part(seed))}")
