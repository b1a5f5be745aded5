#!/bin/bash
# A TUN device with txqueuelen 0 drops every packet, and the sender is told that it was sent.
#
# Seen on Linux 6.18 with iproute2 6.1.0-3 (Debian 12).
# Behaviour: for most virtual devices 0 means no queue: packets pass at once. A TUN device makes its ring, in which
#   packets wait for the program, as long as txqueuelen says, and a ring of 0 is always full. sendto succeeds, the packet
#   is counted as dropped, and the program finds nothing to read. It needs no restart of the link either way.
# Output seen:
#   txqueuelen 500: sent, arrives, 0 dropped
#   txqueuelen 0: sent, nothing arrives, 1 dropped
#   txqueuelen 1: sent, arrives, 1 dropped
# Consequence: a script that sets 0 on all virtual interfaces, against delay or to have no qdisc, cuts tunnels. Use a
#   short queue, or `tc qdisc replace dev NAME root noqueue`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip python3 unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/queue.py" << 'END'
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys


def ip(arguments):
    return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"fin0", 0x1001))  # TUNSETIFF: IFF_TUN and IFF_NO_PI.
ip("link set fin0 addrgenmode none up")
ip("address add 10.9.0.1/24 dev fin0")
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
found = []
for length in (500, 0, 1):
    ip(f"link set fin0 txqueuelen {length}")
    sender.sendto(b"packet", ("10.9.0.2", 9))
    arrives = bool(select.select([tun], [], [], 1)[0])
    if arrives:
        os.read(tun, 2000)
    dropped = json.loads(ip("-s -j link show fin0"))[0]["stats64"]["tx"]["dropped"]
    print(f"txqueuelen {length}: sent, {'arrives' if arrives else 'nothing arrives'}, {dropped} dropped")
    found.append((arrives, dropped))
sys.exit(found != [(True, 0), (False, 1), (True, 1)])
END
unshare --net python3 "$folder/queue.py"
