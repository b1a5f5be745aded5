#!/bin/bash
# wg knows a device in user space by its first name only, whatever its interface is called since.
#
# Seen with Debian 12's wireguard-tools 1.0.20210914-1+b1 and wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: wg finds such a device by the socket that its program made at the start, and looks for no interface. After
#   `ip link set fin0 name fin1`, `wg show interfaces` lists fin0, which no longer exists; fin1 is refused with an error
#   that does not speak of names. A device of the kernel is known by its new name.
# Output seen:
#   interface: fin1
#   wg show interfaces: fin0
#   wg show fin1: Unable to access interface: Protocol not supported
#   wg show fin0: interface: fin0
# Consequence: udev or networkd that renames by rules cuts scripts off which take the name from `ip link`. Rename before
#   the device starts, or give it its last name at once. threepipe-wg makes the same socket, and is known likewise.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in unshare wg wireguard-go; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    wireguard-go -f fin0 > /run/log 2>&1 &
    device=$!
    trap "kill $device; wait $device || true" EXIT
    for _ in $(seq 1 100); do wg show fin0 > /dev/null 2>&1 && break; sleep 0.05; done
    ip link set fin0 name fin1
    for name in fin0 fin1; do ip link show "$name" > /dev/null 2>&1 && echo "interface: $name"; done
    echo "wg show interfaces: $(wg show interfaces)"
    echo "wg show fin1: $(wg show fin1 2>&1 || true)"
    echo "wg show fin0: $(wg show fin0 2>&1 | head -n 1 || true)"
' | tee "$folder/out"
sed -n '/^# Output seen/,/^# Consequence/s/^#   \(.*:.*\)/\1/p' "$0" | head -n 4 | cmp -s - "$folder/out" ||
    { echo "this has changed"; exit 1; }
