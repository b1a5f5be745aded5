#!/bin/bash
# Linux removes IPv4 routes with their interface without telling the listeners of routes.
#
# Seen with Linux 6.18 and iproute2 6.1.0-3 (Debian 12).
# Behaviour: when an interface is set down, the kernel removes the routes of both families through it. It sends
#   RTM_DELROUTE for each of IPv6 (unless net.ipv6.route.skip_notify_on_dev_down is set), and none for IPv4.
# Output seen:
#   routes left: 0 of IPv4, 0 of IPv6
#   messages: 0 of IPv4, 1 of IPv6
# Consequence: a program that mirrors or caches IPv4 routes has to listen to links and addresses too (RTNLGRP_LINK,
#   RTNLGRP_IPV4_IFADDR), and to drop what it knows when they change.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip unshare timeout; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 77; }

exec unshare --net bash -euo pipefail -c '
    ip link add v0 type veth peer name v1 || { echo "there are no veth links"; exit 77; }
    ip link set v0 up
    ip link set v1 up
    ip address add 10.99.0.1/24 dev v0
    ip -6 address add fd99::1/64 dev v0 nodad
    ip route add 10.98.0.0/16 via 10.99.0.2
    ip -6 route add fd98::/64 via fd99::2
    exec 3< <(timeout 5 stdbuf -oL ip -4 monitor route) 4< <(timeout 5 stdbuf -oL ip -6 monitor route)
    ip address add 10.97.0.1/32 dev v1          # A message that shows when the monitors are ready.
    until read -r -t 1 line <&3; do ip address del 10.97.0.1/32 dev v1; ip address add 10.97.0.1/32 dev v1; done
    ip link set v0 down
    echo "routes left: $(ip route show 10.98.0.0/16 | wc -l) of IPv4, $(ip -6 route show fd98::/64 | wc -l) of IPv6"
    ipv4=$(grep -c "10.98.0.0/16" <&3 || true)
    ipv6=$(grep -c "fd98::/64" <&4 || true)
    echo "messages: $ipv4 of IPv4, $ipv6 of IPv6"
    [ "$ipv4" = 0 ] && [ "$ipv6" -gt 0 ] && [ -z "$(ip route show 10.98.0.0/16)" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
