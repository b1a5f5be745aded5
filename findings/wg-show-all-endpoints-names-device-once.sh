#!/bin/bash
# `wg show all endpoints` prints the device's name before the first peer only; other fields have it in every line.
#
# Seen with Debian 12's wireguard-tools 1.0.20210914-1+b1 and wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: wg(8) says that with `all` the first field "for all categories of information is the interface name". Of
#   endpoints only the first peer of each device has it. A device without peers has its name without a line feed.
# Output seen:
#   allowed-ips: 2 lines, 2 of them with the name
#   endpoints:   2 lines, 1 of them with the name
# Consequence: a script that splits these lines into columns takes a key for a name. Ask for each device (`wg show NAME
#   endpoints`), or use `wg show all dump`. `threepipe wg show all endpoints` has the name in every line.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in wg wireguard-go unshare mount; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    wireguard-go -f wg0 2> /run/log &
    device=$!
    trap "kill $device; wait $device || true" EXIT
    for _ in $(seq 1 100); do wg show wg0 > /dev/null 2>&1 && break; sleep 0.05; done
    for _ in 1 2; do wg set wg0 peer "$(wg genkey | wg pubkey)"; done
    counts() { wg show all "$1" | awk "/^wg0\t/ { named++ } END { print NR \" lines, \" named \" of them with the name\" }"; }
    allowed=$(counts allowed-ips)
    endpoints=$(counts endpoints)
    printf "allowed-ips: %s\nendpoints:   %s\n" "$allowed" "$endpoints"
    [ "$allowed" = "2 lines, 2 of them with the name" ] && [ "$endpoints" = "2 lines, 1 of them with the name" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
