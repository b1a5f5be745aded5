"""The VPN of vpn.py, encrypted by WireGuard: python vpn_wireguard.py NAME ADDRESS CONFIG"""

import contextlib
import sys

import threepipe
from threepipe.wireguard import Device

MTU = 1420  # As wg-quick: a datagram has the headers of IPv6, UDP and WireGuard too.


def main(name: str, address: str, config: str) -> None:
    with (
        threepipe.Adapter.create(name, addresses=[address], mtu=MTU) as adapter,
        adapter.start_session() as session,
        Device.from_config(config) as device,
    ):
        print(f"{adapter.name} is up with {address}", flush=True)
        threepipe.pipe(session, device.session)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
