#!/bin/bash
# `ip -d -j tuntap list` prints no JSON as soon as a program has an adapter open.
#
# Seen with iproute2 6.1.0-3 (Debian 12) on Linux 6.18.
# Behaviour: `processes` is an array whose members lack their braces. Without -d, and while no adapter is in use, the
#   output is valid.
# Output seen:
#   not in use: [{"ifname":"fin0","flags":["tun","persist"],"processes":[]}]
#   in use: [{"ifname":"fin0","flags":["tun","persist"],"processes":["name":"python3","pid":NUMBER]}]
#   in use, parsed: Expecting ',' delimiter
# Consequence: a program that reads the list fails only while there is something to see. Read the text without -j, or
#   the line "iff:" in /proc/PID/fdinfo, from which ip takes it. A fix was posted to the netdev list in November 2025.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/list.py" << 'END'
import fcntl
import json
import os
import re
import struct
import subprocess
import sys


def listed():
    text = subprocess.run(["ip", "-d", "-j", "tuntap", "list"], check=True, capture_output=True, text=True).stdout
    return re.sub(r'"pid":\d+', '"pid":NUMBER', text.strip())


subprocess.run(["ip", "tuntap", "add", "fin0", "mode", "tun"], check=True)
print("not in use:", listed())
json.loads(listed())
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"fin0", 0x1001))  # TUNSETIFF: IFF_TUN and IFF_NO_PI.
print("in use:", listed())
try:
    json.loads(listed().replace("NUMBER", "1"))
except ValueError as error:
    print("in use, parsed:", error.msg)
    sys.exit(0)
sys.exit(1)
END
unshare --net --mount sh -c 'mount -t sysfs none /sys && exec python3 "$0/list.py"' "$folder"
