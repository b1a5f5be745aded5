#!/bin/bash
# Linux answers a question for the IPv4 route by an interface with a route that does not exist.
#
# Seen with Linux 6.18 and iproute2 6.1.0-3 (Debian 12).
# Behaviour: RTM_GETROUTE with RTA_OIF (`ip route get ADDRESS oif NAME`) for a destination without a route succeeds for
#   IPv4: the kernel assumes that the destination is on that link. For IPv6 it fails with ENETUNREACH. Without RTA_OIF
#   both fail. The answer looks like that of an on-link route, and RTM_F_FIB_MATCH (`fibmatch`) alone tells the two apart.
# Output seen:
#   IPv4: 10.99.5.5 dev v0 src 10.99.0.1 uid 0
#   IPv4, fibmatch: RTNETLINK answers: No route to host
#   IPv6: RTNETLINK answers: Network is unreachable
# Consequence: a program that asks which next hop an interface has for a packet gets "none, on the link" for no route.
#   If both mean the same to it, it need not care; else it asks with RTM_F_FIB_MATCH.
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
    ip address add 10.99.0.1/32 dev v0
    ip -6 address add fd99::1/128 dev v0 nodad
    ask() { ip "$@" 2>&1 | head -1 || true; }
    ipv4=$(ask -4 route get 10.99.5.5 oif v0)
    match=$(ask -4 route get fibmatch 10.99.5.5 oif v0)
    ipv6=$(ask -6 route get fd99::5 oif v0)
    echo "IPv4: $ipv4"
    echo "IPv4, fibmatch: $match"
    echo "IPv6: $ipv6"
    [[ "$ipv4" = "10.99.5.5 dev v0"* && "$match" = *"No route to host" && "$ipv6" = *unreachable ]]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
