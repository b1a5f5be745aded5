"""Check the installed threepipe: its core, every promise of the contract, and a pair of WireGuard devices.

    python installed_wheel.py native|pure

tools/try_wheels.py starts it in fresh environments, where it is alone and has no network.
"""

import sys
import sysconfig
import threading
from pathlib import Path

import threepipe
from threepipe.echo import echo_reply, echo_request
from threepipe.testing import check_adapter, make_memory_adapter


def main(core: str) -> None:
    file = Path(threepipe.__file__)
    found = "native" if threepipe.native_core else "pure"
    assert found == core, f"{file} has the {found} core, not the {core} one"
    check_adapter(make_memory_adapter)
    if sys.platform == "linux":
        raise_loopback()
    pass_through_wireguard()
    print(f"{sysconfig.get_platform()}, Python {sys.version.split()[0]}: {found}, the contract and WireGuard hold")


def raise_loopback() -> None:
    """Bring the new network namespace's loopback up."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")


def pass_through_wireguard() -> None:
    """Send an echo request from one device to another and receive its reply."""
    from threepipe.wireguard import Change, Device, PeerChange, key_from_text, parse_networks

    left = Device(private_key=key_from_text("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="))
    right = Device(private_key=key_from_text("uGC4SrAUpsRBVTTcjHBmkcUIT5ClMHTPuhWbRgGDbmA="))
    endpoint = ("127.0.0.1", right.status().listen_port)
    to_right = PeerChange(right.status().public_key, endpoint=endpoint, allowed_ips=parse_networks(["10.0.0.2"]))
    to_left = PeerChange(left.status().public_key, allowed_ips=parse_networks(["10.0.0.1"]))
    left.configure(Change(peers=(to_right,)))
    right.configure(Change(peers=(to_left,)))

    def answer() -> None:
        for bundle in right.session:
            right.session.send([reply for packet in bundle if (reply := echo_reply(packet))])

    threading.Thread(target=answer).start()
    with left, right:
        left.session.send([echo_request("10.0.0.1", "10.0.0.2", identifier=1, sequence=1)])
        assert len(left.session.receive(timeout=30)) == 1


if __name__ == "__main__":
    main(sys.argv[1])
