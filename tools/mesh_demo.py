"""Show a mesh of twelve nodes in network namespaces of this machine, and how it heals when a link is cut.

    python tools/mesh_demo.py [FILE]

Every node has a WireGuard interface of threepipe with all nodes as peers, an agent that learns of them by a bus of
NATS, and babeld, unmodified, which finds the ways: only nodes with a cable between them reach each other directly. A
map of the mesh before and after the cut goes to FILE, build/mesh-demo.svg by default.

The exit status is 0 if all nodes reached each other and the cut link was left in time, 1 if not, 77 if this machine
lacks something, and 130 after Ctrl-C. Nothing is left in any case.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from mesh_lab import Failed, Lab, Node, is_alive, named, opened, path_between, tool
from mesh_map import Link, Map, picture

ROOT = Path(__file__).parents[1]
NODES = 12
LIMIT = 5.0  # Seconds that a cut may be felt.
PACKAGES = {
    "babeld": "babeld",
    "nats-server": "nats-server",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
NOT_AVAILABLE, INTERRUPTED = 77, 130


def say(text: str) -> None:
    print(text, flush=True)


def drawn(lab: Lab, title: str, text: str, links: list[Link], way: list[Node]) -> Map:
    return Map(title, text, [node.name for node in lab.nodes], links, [node.name for node in way])


def links(lab: Lab, statuses: dict[str, Any], cut: Collection[Node] = ()) -> list[Link]:
    """Return the links of all cables with their states."""
    return [
        Link(
            one.name,
            other.name,
            "cut" if {one, other} == cut else "alive" if is_alive(statuses, one.name, other.name) else "silent",
        )
        for one, other in lab.cables
    ]


def show(target: Path, folder: Path) -> None:
    """Run the demonstration. Raises `Failed`."""
    with opened(folder, NODES) as lab:
        say(f"{NODES} networks, joined by {len(lab.cables)} cables: a ring with chords. A bus beside them.")
        lab.start_bus()
        say("nats-server is up. The agents join ...")
        say(f"  every node knows every other, after {lab.join():.1f} s")
        say("babeld starts on mesh0 of each node ...")
        say(f"  every node has a route to every other, after {lab.route():.1f} s")
        one, far = lab.nodes[0], lab.nodes[NODES // 2]
        before = lab.statuses()
        table(lab, before)
        say(f"Probes pass from {one.name} to {far.name} every 10 ms. The first cable on their way is cut ...")
        way: list[Node] = []

        def cut() -> None:
            way.extend(path_between(one, far))  # Now, as ways of the same length take turns.
            way[0].cut(way[1])

        gap = lab.gap(one, far, cut, LIMIT + 1)
        after, new_way = lab.statuses(), path_between(one, far)
        healed = f"{gap.lost} probes lost, {gap.seconds:.2f} s without one"
        say(f"  by {named(way)} before, and by {named(new_way)} now: {healed}")
        maps = [
            drawn(lab, "Before", f"from {one.name} to {far.name} by {len(way) - 1} links", links(lab, before), way),
            drawn(lab, f"After {named(way[:2])} is cut", healed, links(lab, after, set(way[:2])), new_way),
        ]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(picture(maps, "A mesh of twelve nodes, and how it heals"), encoding="utf-8")
        if gap.seconds > LIMIT:
            raise Failed(f"the cut was felt for {gap.seconds:.2f} s, and {LIMIT:.0f} s are allowed")
    say(f"Map: {target}")
    say(f"All {NODES} nodes reached each other, and the cut link was left after {gap.seconds:.2f} s. Nothing is left.")


def table(lab: Lab, statuses: dict[str, Any]) -> None:
    """Print the neighbours of each node, and its slowest round trip."""
    for node in lab.nodes:
        others = statuses[node.name]["nodes"]
        trips = [other["round_trip"] for other in others if other["round_trip"] is not None]
        direct = " ".join(f"{other.name}" for other in sorted(node.neighbours, key=lambda each: each.number))
        slowest = f"{1000 * max(trips):.1f} ms" if trips else "none"
        say(f"  {node.name:4} {node.address!s:38} neighbours {direct:12} slowest round trip {slowest}")


def end(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "mesh-demo.svg"
    if lacking := sorted({package for name, package in PACKAGES.items() if not tool(name)}):
        say(f"mesh-demo: {', '.join(lacking)} missing; run make mesh-demo as root, or install them")
        return NOT_AVAILABLE
    if os.geteuid():
        isolated = ["unshare", "--map-root-user", "--net", "--mount", "--"]
        os.execvp(isolated[0], [*isolated, sys.executable, *sys.orig_argv[1:]])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with tempfile.TemporaryDirectory(prefix="mesh-demo-") as folder:
            show(target, Path(folder))
    except Failed as failure:
        say(f"mesh-demo failed: {failure}. Nothing is left.")
        return 1
    except KeyboardInterrupt:
        say("\nmesh-demo was interrupted. Nothing is left.")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
