#!/bin/bash
# `ip tuntap del` succeeds for a name that does not exist, and for an adapter with several queues that goes on.
#
# Seen with iproute2 6.1.0-3 (Debian 12) on Linux 6.18.
# Behaviour: there is no request to delete a TUN device. ip opens the device of that name, which makes a new one where
#   there is none, ends its persistence and closes it. With `multi_queue` it attaches one more queue to a device that
#   another program has open, and the device stays with that program. `ip link del` fails for the first, and deletes the
#   second.
# Output seen:
#   tuntap del of no interface: status 0
#   link del of no interface: status 1
#   tuntap del of one in use, with several queues: status 0, the interface is there
#   tuntap del of one in use, with one queue: status 1, the interface is there
# Consequence: a misspelt name passes in a script's cleanup, and needs a privilege to delete nothing. For a moment there
#   is an interface of that name, which udev and network managers notice. Use `ip link del`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip python3 unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/hold.py" << 'END'
import fcntl
import os
import struct
import subprocess
import sys

held = []
for name, flags in ((b"several", 0x1101), (b"one", 0x1001)):  # IFF_TUN and IFF_NO_PI, and IFF_MULTI_QUEUE.
    held.append(os.open("/dev/net/tun", os.O_RDWR))
    fcntl.ioctl(held[-1], 0x400454CA, struct.pack("16sH22x", name, flags))  # TUNSETIFF
sys.exit(subprocess.call(["bash", "-euo", "pipefail", "-c", sys.stdin.read()]))
END
unshare --net python3 "$folder/hold.py" << 'END'
status() { "$@" 2> /dev/null && echo "status 0" || echo "status $?"; }
there() { ip link show "$1" > /dev/null 2>&1 && echo "the interface is there" || echo "the interface is gone"; }
none=$(status ip tuntap del dev absent mode tun)
link=$(status ip link del absent)
several="$(status ip tuntap del dev several mode tun multi_queue), $(there several)"
one="$(status ip tuntap del dev one mode tun), $(there one)"
echo "tuntap del of no interface: $none"
echo "link del of no interface: $link"
echo "tuntap del of one in use, with several queues: $several"
echo "tuntap del of one in use, with one queue: $one"
[ "$none, $link" = "status 0, status 1" ] && [ "$several" = "status 0, the interface is there" ] &&
    [ "$one" = "status 1, the interface is there" ]
END
