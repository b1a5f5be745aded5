#!/bin/bash
# Linux acknowledges a new IPv6 address before it accepts packets to it, also without duplicate address detection.
#
# Seen with Linux 6.18 and iproute2 6.1.0-3 (Debian 12).
# Behaviour: the answer to RTM_NEWADDR with `nodad` comes before a worker of the kernel has added the address's route
#   to the table `local`. Until then `ip route get` sends packets to the own address out of the interface, and packets
#   that arrive for it are dropped and counted as Ip6InAddrErrors. An IPv4 address is local at once.
# Output seen (the first number varies from run to run):
#   IPv6: 154 of 200 addresses were not local at once
#   IPv4: 0 of 200 addresses were not local at once
#   a moment later: local fd98::1 from :: dev lo table local proto kernel src fd98::1 metric 0 pref medium
# Consequence: a program that makes a tunnel and sends at once loses the first answers. `nodad` and an address that is
#   not tentative are no proof; ask for the route to the address until its type is `local`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 77; }

exec unshare --net bash -euo pipefail -c '
    ip link add v0 type veth peer name v1 || { echo "there are no veth links"; exit 77; }
    ip link set v0 up
    ip link set v1 up
    late() {  # The family, the part of the address before its number, and the length of the prefix.
        count=0
        for number in $(seq 1 200); do
            found=$(printf "address add %s/%s dev v0 %s\nroute get %s\n" \
                "$2$number" "$3" "$4" "$2$number" | ip "-$1" -batch -)
            [[ "$found" = local* ]] || count=$((count + 1))
        done
        echo "IPv$1: $count of 200 addresses were not local at once"
    }
    late 6 fd99:: 64 nodad
    ipv6=$count
    late 4 10.99.0. 24 ""
    ip -6 address add fd98::1/64 dev v0 nodad
    for _ in $(seq 1 100); do
        found=$(ip -6 route get fd98::1)
        [[ "$found" = local* ]] && break
        sleep 0.01
    done
    echo "a moment later: $found"
    [ "$ipv6" -gt 0 ] && [ "$count" = 0 ] && [[ "$found" = local* ]]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
