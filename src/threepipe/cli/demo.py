"""`threepipe demo`: the demonstration of `threepipe.demo`, shown as it runs, and its counts as a table."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from threepipe.cli.output import print_json, print_table

if TYPE_CHECKING:
    from threepipe.demo import Result, Stage

__all__ = ["demo"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LARGEST = 1 << 40


def _size(text: str) -> int:
    """Parse a number of bytes, optionally with K, M or G (powers of 1024; also as KiB or KB)."""
    match = re.fullmatch(r"(\d+)(?:([KMG])(?:i?B)?)?", text, re.IGNORECASE | re.ASCII)
    size = int(match[1]) * _UNITS[(match[2] or "").upper()] if match else 0
    if not 1 <= size <= _LARGEST:
        raise typer.BadParameter(f"{text!r}: give a number of bytes, such as 1000000, 64M or 2G, at most 1024G")
    return size


def demo(
    size: Annotated[str, typer.Option(metavar="BYTES", help="Bytes to transfer, such as 64M or 2G.")] = "256M",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Watch real packets pass through this program.

    It creates two adapters in two new network namespaces, joins them, pings
    across with IPv4 and IPv6, transfers a stream by TCP and prints the
    counts. Afterwards it removes what it created. Without a TUN device it
    uses adapters in memory, and on macOS and the BSDs an adapter and a machine
    in memory. The exit status is 0 if everything arrived intact.
    """
    from threepipe.demo import open_stage, play

    total = _size(size)
    with open_stage() as (stage, description):
        if json:
            result = play(stage, total, lambda _: None, lambda _: None)
        else:
            typer.echo(f"{description}.")
            result = _play_visibly(stage, total)
    if json:
        print_json(result)
    else:
        print_table(None, _rows(result), NO="red", lost="red")
    raise typer.Exit(not result.intact)


def _play_visibly(stage: "Stage", size: int) -> "Result":
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from threepipe.demo import play

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=size)
        return play(
            stage,
            size,
            lambda step: bar.update(task, description=step),
            lambda done: bar.update(task, completed=done),
        )


def _rows(result: "Result") -> list[tuple[str, str]]:
    return [
        ("ping, IPv4", _round_trip(result, 4, result.ping4_ms)),
        ("ping, IPv6", _round_trip(result, 6, result.ping6_ms)),
        ("transferred", f"{result.bytes:,} bytes in {result.seconds:.2f} s"),
        ("rate", f"{result.bits_per_second / 1e9:.2f} Gbit/s"),
        ("arrived intact", "yes, by SHA-256" if result.sha256_match else "NO"),
        ("packets", f"{result.packets:,}"),
        ("bundles", f"{result.bundles:,}"),
        ("packets per bundle", f"{result.packets_per_bundle:.1f}"),
        ("dropped", f"{result.dropped:,}"),
    ]


def _round_trip(result: "Result", version: int, median: float | None) -> str:
    if version not in result.families:
        return "not enabled on this machine"
    return "lost" if median is None else f"{median:.3f} ms (median round trip)"
