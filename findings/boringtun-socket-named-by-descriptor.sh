#!/bin/bash
# boringtun that is given a descriptor names its control socket by the descriptor's number, not by its argument.
#
# Seen with boringtun-cli 0.7.1 (crates.io) on Linux 6.18.
# Behaviour: with WG_TUN_FD=3 (or --tun-fd 3), `boringtun-cli NAME` makes /var/run/wireguard/3.sock. wireguard-go makes
#   NAME.sock there.
# Output seen:
#   3.sock
# Consequence: `wg` knows the device as 3 and not by its interface's name, and two devices whose descriptors have the same
#   number cannot share a folder for sockets.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in cargo python3 unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
CARGO_TARGET_DIR="$folder/target" cargo install --quiet --locked --root "$folder" boringtun-cli@0.7.1 ||
    { echo "boringtun-cli cannot be built"; exit 77; }
export PATH="$folder/bin:$PATH"
cat > "$folder/start.py" << 'END'
import fcntl
import os
import struct
import sys

number = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(number, 0x400454CA, struct.pack("16sH22x", b"wg0", 0x1001))  # TUNSETIFF: IFF_TUN and IFF_NO_PI.
os.dup2(number, 3)
os.set_inheritable(3, True)  # dup2 leaves it closed on exec if it has that number already.
os.environ["WG_TUN_FD"] = "3"
os.execvp("boringtun-cli", ["boringtun-cli", "-f", "--disable-drop-privileges", "wg0"])
END
unshare --net --mount sh -ec '
mount -t tmpfs none /var/run
python3 "$0/start.py" > /dev/null 2>&1 &
until ls /var/run/wireguard/*.sock > /dev/null 2>&1; do kill -0 $!; sleep 0.1; done
ls /var/run/wireguard
kill -9 $!
' "$folder" | tee "$folder/out"
echo 3.sock | cmp -s - "$folder/out" || { echo "this has changed"; exit 1; }
