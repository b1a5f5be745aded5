"""pymobiledevice3's tunnel over a Unix socket, with another TUN class: KIND PATH.

KIND is `pytun-pmd3`, `threepipe`, or `drops` for a class that does nothing. Prints the name of the adapter, and at the
end of the connection how many seconds of wall clock and of processor it took since then.
"""

import asyncio
import sys
import time
from typing import Any

import pymobiledevice3.remote.tunnel_service as service


class Drops:
    """A TUN device without packets, which costs no time: the limit of any other."""

    name = "nothing"
    addr = ""
    mtu = 0

    def up(self) -> None:
        pass

    def close(self) -> None:
        pass

    def write(self, data: bytes) -> int:
        return len(data)

    async def async_read_batch(self) -> list[bytes]:
        await asyncio.get_running_loop().create_future()
        return []


def tun_class(kind: str) -> Any:
    if kind == "drops":
        return Drops
    if kind == "threepipe":
        from threepipe.compat.pytun_pmd3 import TunTapDevice

        return TunTapDevice
    return service.TunTapDevice


async def tunnel(path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    tunnel = service.RemotePairingTcpTunnel(reader, writer)
    parameters = (await tunnel.request_tunnel_establish())["clientParameters"]
    await tunnel.start_tunnel(parameters["address"], parameters["mtu"])
    print(tunnel.tun.name, flush=True)  # noqa: T201
    began = time.monotonic(), time.process_time()
    await tunnel.wait_closed()
    print(time.monotonic() - began[0], time.process_time() - began[1], flush=True)  # noqa: T201
    await tunnel.stop_tunnel()


kind, path = sys.argv[1:]
service.TunTapDevice = tun_class(kind)
asyncio.run(tunnel(path))
