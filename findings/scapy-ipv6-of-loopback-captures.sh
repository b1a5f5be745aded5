#!/bin/bash
# scapy on Linux does not know IPv6 packets in captures of tunnels of macOS and the BSDs.
#
# Seen with scapy 2.8.0 and Python 3.11.7 on Linux; Debian 12's tshark 4.0.17-0+deb12u3 and tcpdump 4.99.3-1 know them.
# Behaviour: link types 0 (utun of macOS, tun of FreeBSD and NetBSD) and 108 (tun of OpenBSD) begin with the number of
#   the address family on the system that captured. It is 2 for IPv4 everywhere; for IPv6 it is 24 on NetBSD and OpenBSD,
#   28 on FreeBSD and 30 on macOS. scapy takes the number that IPv6 has on the system that reads, 10 on Linux, alone.
# Output seen:
#   link type 0, family 2: IP
#   link type 0, family 24: Raw
#   link type 0, family 28: Raw
#   link type 0, family 30: Raw
#   link type 108, family 24: Raw
#   link type 0, family 10: IPv6
# Consequence: a program that looks for IPv6 in such a file finds nothing, and no error. Have scapy know the numbers:
#   `bind_layers(Loopback, IPv6, type=30)`, and LoopbackOpenBSD too. threepipe's replay knows them all.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
[ "$(uname)" = Linux ] || { echo "it needs Linux"; exit 77; }
command -v python3 > /dev/null || { echo "python3 is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{ python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q scapy==2.8.0; } ||
    { echo "scapy cannot be installed"; exit 77; }
cat > "$folder/read.py" << 'END'
import struct
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

four, six = bytes(IP(dst="10.0.0.2") / UDP()), bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP())
for kind, family, packet in ((0, 2, four), (0, 24, six), (0, 28, six), (0, 30, six), (108, 24, six), (0, 10, six)):
    data = struct.pack(">I" if kind == 108 else "<I", family) + packet
    with open(sys.argv[1], "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, kind))
        file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
    print(f"link type {kind}, family {family}: {rdpcap(sys.argv[1])[0].payload.name}")
END
"$folder/venv/bin/python" "$folder/read.py" "$folder/file" 2> /dev/null | tee "$folder/out"
sed -n '/^# Output seen/,/^# Consequence/s/^#   //p' "$0" | grep ^link | cmp -s - "$folder/out" ||
    { echo "this has changed"; exit 1; }
