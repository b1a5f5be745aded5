"""A WireGuard device on a model of a BSD's kernel; prints what the model has, as lines of JSON.

Arguments: the name of a bench, `up` and a file of wg-quick, or `serve` and a name. `up` prints a line once the device
is up, one after the network's gateway has changed, and one at the end; `serve` prints the first and the last.
"""

import json
import os
import sys
import threading
import time

from tests.support.bsd import benches
from tests.support.bsd.bench import Bench
from threepipe import platforms
from threepipe.platforms.bsd import here
from threepipe.platforms.bsd.kind import RTF_HOST, RTF_STATIC
from threepipe.wireguard.quick.daemon import serve
from threepipe.wireguard.quick.up import run
from threepipe.wireguard.uapi_socket import FOLDER, names, take_down

PLATFORM = {"darwin": "darwin", "freebsd": "freebsd14", "netbsd": "netbsd10", "openbsd": "openbsd7"}


def tell(bench: Bench) -> None:
    found = {
        each.name: {
            str(network): bool(flags & RTF_HOST)
            for network, (flags, _) in sorted(each.routes.items(), key=str)
            if flags & RTF_STATIC
        }
        for each in bench.kernel.interfaces.values()
    }
    files = {path.name: path.read_text() for path in FOLDER.glob("*.name")}
    mtu = {each.name: each.mtu for each in bench.kernel.interfaces.values()}
    sys.stdout.write(json.dumps({"routes": found, "sockets": names(), "files": files, "mtu": mtu}) + "\n")
    sys.stdout.flush()


def main() -> None:
    name, command, what = sys.argv[1:4]
    bench: Bench = getattr(benches, name)()
    bench.kernel.add_gateway("em0", "198.51.100.7/24", "198.51.100.1", mtu=1492)
    replaced = {
        here: {"_place": lambda: bench.place, "driver_of": lambda platform: bench.place.driver},
        platforms: {
            **{each: getattr(here, each) for each in here.__all__},
            "DNS_TOOLS": here.dns_tools(PLATFORM[name]),
            "ROUTES_BY_MARK": False,
        },
    }
    for module, values in replaced.items():
        for each, value in values.items():
            setattr(module, each, value)
    device = what if command == "serve" else os.path.basename(what).removesuffix(".conf")

    def change() -> None:
        with bench.kernel.lock:
            del bench.kernel.interfaces["em0"]
            bench.kernel.add_gateway("em1", "203.0.113.7/24", "203.0.113.1")
        while "192.0.2.9/32" not in map(str, bench.kernel.interfaces["em1"].routes):
            time.sleep(0.01)  # The device looks a few times in a second.
        tell(bench)
        take_down(device, 20)

    def ready() -> None:
        tell(bench)
        if command == "up":
            threading.Thread(target=change).start()
        else:
            threading.Thread(target=take_down, args=(names()[0], 20)).start()

    if command == "up":
        run(what, ready)
    else:
        serve(what, ready)
    tell(bench)


main()
