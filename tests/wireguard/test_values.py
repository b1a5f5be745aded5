"""Forms of keys, endpoints, networks, numbers and paths that are taken, and the errors for others."""

import ipaddress
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from threepipe.errors import InvalidSetting
from threepipe.wireguard import (
    Change,
    Device,
    PeerChange,
    Tunnel,
    key_from_text,
    key_to_text,
    parse_networks,
    read_config,
)
from threepipe.wireguard.noise import Identity
from threepipe.wireguard.quick.config import parse_config, warn_if_exposed, write_config
from threepipe.wireguard.quick.sections import Config, PeerConfig

KEY = bytes(range(32))
BASE64 = key_to_text(KEY)
HERE = ("127.0.0.1", 51820)
TEN = ipaddress.ip_network("10.0.0.0/8")
FE80 = f"fe80::1%{socket.if_nameindex()[0][0]}"


class Two:
    """A number that is not an int, as those of NumPy."""

    def __index__(self) -> int:
        return 2


FORMS: list[tuple[Callable[[Any], object], object, object]] = [
    *((lambda key: PeerChange(key).public_key, key, KEY) for key in (KEY, bytearray(KEY), memoryview(KEY), BASE64)),
    (lambda key: PeerChange(key).public_key, f" {BASE64}\n", KEY),
    (lambda key: PeerChange(KEY, preshared_key=key).preshared_key, BASE64, KEY),
    (lambda key: PeerChange(KEY, preshared_key=key).preshared_key, None, None),
    (lambda key: Change(key).private_key, BASE64, KEY),
    (lambda key: Config("wg0", key).private_key, BASE64, KEY),
    (lambda key: PeerConfig(key, key).preshared_key, BASE64, KEY),
    (key_to_text, KEY, BASE64),
    (key_to_text, f"{BASE64}\n", BASE64),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, None, None),
    *((lambda there: PeerChange(KEY, endpoint=there).endpoint, there, HERE) for there in ("127.0.0.1:51820", HERE)),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, [*HERE], HERE),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, (ipaddress.ip_address(HERE[0]), HERE[1]), HERE),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, "[::1]:51820", ("::1", 51820)),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, ("FD00:0::1", Two()), ("fd00::1", 2)),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, ("fd00::1", 2, 0, 0), ("fd00::1", 2)),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, ("fe80::1", 2, 0, 3), ("fe80::1%3", 2)),
    (lambda there: PeerChange(KEY, endpoint=there).endpoint, f"[{FE80}]:2", (FE80, 2)),
    (lambda there: PeerConfig(KEY, endpoint=there).endpoint, "vpn.example.org:2", ("vpn.example.org", 2)),
    (lambda there: PeerConfig(KEY, endpoint=there).endpoint, ("vpn.example.org", 2), ("vpn.example.org", 2)),
    *((lambda networks: PeerChange(KEY, allowed_ips=networks).allowed_ips, networks, (TEN,)) for networks in (
        ["10.0.0.0/8"], [TEN], (network for network in ("10.1.1.1/8",)), {"10.0.0.0/8": 1}, [" 10.0.0.0/255.0.0.0 "],
        [ipaddress.ip_interface("10.1.2.3/8")],
    )),
    (lambda networks: PeerChange(KEY, removed_ips=networks).removed_ips, ["10.0.0.0/8"], (TEN,)),
    (lambda networks: PeerConfig(KEY, allowed_ips=networks).allowed_ips, ["10.0.0.0/8"], (TEN,)),
    (parse_networks, [ipaddress.ip_address("fd00::1")], (ipaddress.ip_network("fd00::1/128"),)),
    (lambda peers: Change(peers=peers).peers, [PeerChange(KEY)], (PeerChange(KEY),)),
    (lambda port: Change(listen_port=port).listen_port, Two(), 2),
    (lambda mark: Change(fwmark=mark).fwmark, 0xFFFFFFFF, 0xFFFFFFFF),
    (lambda keepalive: PeerChange(KEY, persistent_keepalive=keepalive).persistent_keepalive, 25, 25),
    (lambda addresses: Config("wg0", addresses=addresses).addresses, ["10.1.2.3/8"],
     (ipaddress.ip_interface("10.1.2.3/8"),)),
    (lambda commands: Config("wg0", post_up=commands).post_up, ["true"], ("true",)),
    (lambda mtu: Config("wg0", mtu=mtu).mtu, 1400, 1400),
]  # fmt: skip
"""A function, an argument, and the expected value."""


@pytest.mark.parametrize(("call", "given", "inside"), FORMS)
def test_a_value_in_any_of_its_forms_has_one_form_inside(
    call: Callable[[object], object], given: object, inside: object
) -> None:
    assert call(given) == inside


ENDPOINT_FORMS = r"endpoint: give a text such as 192\.0\.2\.1:51820 or .*, not "
# Without types, which refuse most mistakes.
peer_change, change, device, tunnel = cast(Any, PeerChange), cast(Any, Change), cast(Any, Device), cast(Any, Tunnel())
peer_config, config = cast(Any, PeerConfig), cast(Any, Config)
to_text, from_text = cast(Any, key_to_text), cast(Any, key_from_text)
MISTAKES: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: peer_change(b"short"), InvalidSetting, "a public key has 32 bytes, not 5; give its text in base64 as"),
    (lambda: peer_change(KEY, preshared_key=b""), InvalidSetting, "a preshared key has 32 bytes, not 0"),
    (lambda: change(BASE64.encode()), InvalidSetting, "a private key has 32 bytes, not 44; give"),
    (lambda: change(KEY.hex()), InvalidSetting, "invalid private key: expected 44 base64 characters"),
    (lambda: change("\N{SNOWMAN}"), InvalidSetting, "invalid private key: expected 44"),
    (lambda: peer_change(5), TypeError, "a public key: give its 32 bytes, or its base64 text as .*, not int"),
    (lambda: peer_change(None), TypeError, "a public key: give .*, not NoneType"),
    (lambda: peer_config([KEY]), TypeError, "a public key: give .*, not list"),
    (lambda: to_text(KEY[1:]), InvalidSetting, "a WireGuard key has 32 bytes, not 31"),
    (lambda: to_text(None), TypeError, "a WireGuard key: give its 32 bytes"),
    (lambda: from_text(KEY), TypeError, "a WireGuard key: give its base64 text as a str, not bytes"),
    (lambda: peer_change(KEY, endpoint="127.0.0.1"), InvalidSetting, "endpoint '127.0.0.1': write it as NAME:PORT, "),
    (lambda: peer_change(KEY, endpoint="::1:5"), InvalidSetting, r"'::1:5': write it as .* or \[ADDRESS\]:PORT"),
    (lambda: peer_change(KEY, endpoint="10.0.0.1:66666"), InvalidSetting, "'66666' is not a number from 0 to 65535"),
    *((lambda there=there: peer_change(KEY, endpoint=there), InvalidSetting,
       r"endpoint vpn\.example\.org: give an IP address; look names up first, as by socket\.getaddrinfo\(\)")
      for there in ("vpn.example.org:5", ("vpn.example.org", 5))),
    (lambda: peer_change(KEY, endpoint=("::1", 65536)), InvalidSetting, "endpoint ::1: port 65536: give 0 to 65535"),
    (lambda: peer_change(KEY, endpoint=("::1", "5")), TypeError, "endpoint ::1: port: give a whole number .*, not str"),
    (lambda: peer_change(KEY, endpoint=("::1", 5, 0, None)), TypeError, "endpoint ::1: scope: give .*, not NoneType"),
    (lambda: peer_change(KEY, endpoint=(5, "::1")), TypeError, ENDPOINT_FORMS + "int"),
    (lambda: peer_change(KEY, endpoint=("::1",)), TypeError, ENDPOINT_FORMS + "1 values"),
    (lambda: peer_change(KEY, endpoint=b"127.0.0.1:5"), TypeError, ENDPOINT_FORMS + "bytes"),
    (lambda: peer_config(KEY, endpoint=51820), TypeError, ENDPOINT_FORMS + "int"),
    *((lambda wrong=wrong: peer_change(KEY, allowed_ips=wrong), TypeError, "allowed IPs: give a list, even for one")
      for wrong in ("10.0.0.1/32", b"10.0.0.1", TEN, ipaddress.ip_address("10.0.0.1"), 5, None)),
    (lambda: peer_change(KEY, removed_ips="10.0.0.1/32"), TypeError, "allowed IPs: give a list"),
    *((lambda wrong=wrong: parse_networks([wrong]), TypeError, "allowed IPs: give networks, or texts such as .*, not")
      for wrong in (5, b"\x0a\0\0\1", None, ("10.0.0.0", 8))),
    (lambda: peer_change(KEY, allowed_ips=["10.0.0.0/33"]), InvalidSetting, "allowed IP '10.0.0.0/33': .*; write"),
    (lambda: peer_config(KEY, allowed_ips=["fe80::1%eth0"]), InvalidSetting, "'fe80::1%eth0': an allowed IP has no"),
    (lambda: peer_change(KEY, persistent_keepalive=65536), InvalidSetting, "persistent keepalive 65536: give 0 to"),
    (lambda: peer_change(KEY, persistent_keepalive="25"), TypeError, "persistent keepalive: give a whole number from"),
    (lambda: peer_config(KEY, persistent_keepalive=2.5), TypeError, "persistent keepalive: give .*, not float"),
    (lambda: change(fwmark=1 << 32), InvalidSetting, "fwmark 4294967296: give 0 to 4294967295"),
    (lambda: change(listen_port="51820"), TypeError, "listen port: give a whole number from 0 to 65535, not str"),
    (lambda: change(peers=peer_change(KEY)), TypeError, "peers: give a list, even for one, not PeerChange"),
    (lambda: change(peers=[KEY]), TypeError, "peers: give objects of PeerChange, not bytes"),
    (lambda: device(private_key=b"short"), InvalidSetting, "a private key has 32 bytes"),
    (lambda: device(listen_port=1 << 16), InvalidSetting, "listen port 65536: give"),
    (lambda: device(peers=[change()]), TypeError, "peers: give objects of PeerChange, not Change"),
    (lambda: device(mtu="1420"), TypeError, "mtu: give a whole number from 0 to 65535, not str"),
    (lambda: config("a/b"), InvalidSetting, "'a/b' cannot be the name of a device"),
    (lambda: config(Path("wg0")), TypeError, "name: give a str, not .*Path"),
    (lambda: config("wg0", mtu=10), InvalidSetting, "MTU 10: give"),
    (lambda: config("wg0", addresses="10.0.0.1/24"), InvalidSetting, "address '10.0.0.1/24': give a list"),
    (lambda: config("wg0", table=5), TypeError, "table: give a str, not int"),
    (lambda: config("wg0", post_up="true"), TypeError, "post_up: give a list, even for one, not str"),
    (lambda: config("wg0", dns=[ipaddress.ip_address("::1")]), TypeError, "dns: give texts, not IPv6Address"),
    (lambda: config("wg0", peers=[peer_change(KEY)]), TypeError, "peers: give objects of PeerConfig, not PeerChange"),
    *((lambda read=read: read(5), TypeError, "path: give that of a file as a str or Path, not int")
      for read in (read_config, warn_if_exposed)),
    (lambda: read_config("a\0b.conf"), InvalidSetting, r"path 'a\\x00b\.conf': there is a NUL character"),
    (lambda: tunnel.configure(peer_change(KEY), 0.0), TypeError, "configure: give a Change, not PeerChange"),
    (lambda: tunnel.receive(memoryview(b"x"), 1, 5, 0.0), TypeError, ENDPOINT_FORMS + "int"),
]  # fmt: skip
"""A call, and the expected error."""


@pytest.mark.parametrize(("call", "error", "said"), MISTAKES)
def test_a_wrong_value_raises_what_to_give_without_a_key(
    call: Callable[[], object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        call()
    told = "".join(traceback.format_exception_only(raised.value))
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert not any(form in told for form in (BASE64, KEY.hex(), repr(KEY)))


def test_a_device_of_texts_has_what_they_say_and_refuses_anything_but_a_change() -> None:
    public = key_to_text(Identity(KEY).public)
    peer = PeerChange(public, preshared_key=BASE64, endpoint="127.0.0.1:9", allowed_ips=["10.1.2.3/8"])
    with Device(private_key=key_to_text(bytes(31) + b"\1"), peers=[peer]) as device:
        before = device.status()
        (found,) = before.peers
        assert (found.public_key, found.preshared_key) == (Identity(KEY).public, KEY)
        assert (found.endpoint, found.allowed_ips) == (("127.0.0.1", 9), (TEN,))
        with pytest.raises(TypeError, match="configure: give a Change, not dict"):
            device.configure({"peers": []})  # type: ignore[arg-type]
        with pytest.raises(InvalidSetting, match="mtu 65536: give 0 to 65535"):
            device.mtu = 65536
        assert device.status() == before


def test_a_tunnel_takes_endpoints_as_sockets_and_texts_have_them() -> None:
    tunnel = Tunnel()
    for endpoint in ("[::1]:5", ("::1", 5), ("::1", 5, 0, 0), (ipaddress.ip_address("::1"), 5)):
        assert tunnel.receive(memoryview(b"nothing"), 7, endpoint, 0.0) == []
        tunnel.forget_local_address(endpoint)
    assert sum(tunnel.rejected.values()) == 4


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_read_by_its_path_as_text_or_path(tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
    peer = PeerConfig(BASE64, allowed_ips=["10.0.0.0/8"], endpoint="vpn.example.org:5")
    config = Config("wg7", BASE64, addresses=["10.0.0.1/24"], peers=[peer])
    path = tmp_path / "wg7.conf"
    path.write_text(write_config(config))
    path.chmod(0o600)
    warn_if_exposed(kind(path))
    assert read_config(kind(path)) == parse_config(path.read_text(), "wg7", "") == config
