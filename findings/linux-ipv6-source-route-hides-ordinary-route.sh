#!/bin/bash
# An IPv6 route by source hides the ordinary route to the same destination from all other sources in Linux.
#
# Seen with Linux 6.18 and iproute2 6.1.0-3 (Debian 12), CONFIG_IPV6_SUBTREES=y.
# Behaviour: beside `fd98::/32 via fd99::3`, the route `fd98::/32 from fd97::/32 via fd99::2` should be for packets from
#   fd97::/32 alone. But packets of every other source find no route ("Network is unreachable") until it is removed,
#   although `ip -6 route` shows both, and whichever was added first. Two default routes do not have this fault.
# Output seen:
#   from fd97::1: fd98::5 from fd97::1 via fd99::2 dev v0 src fd99::1 metric 1024 pref medium
#   from fd96::1: RTNETLINK answers: Network is unreachable
#   from fd96::1, once the other route is gone: fd98::5 from fd96::1 via fd99::3 dev v0 src fd99::1 metric 1024 pref medium
#   defaults, from fd96::1: fd95::5 from fd96::1 via fd99::3 dev v0 src fd99::1 metric 1024 pref medium
# Consequence: source-specific routing (babeld, BIRD) with ordinary routes to the same prefix loses packets; use rules and
#   tables, or give both routes a source.
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
    ip -6 address add fd99::1/64 dev v0 nodad
    ask() { ip -6 route get "$1" from "$2" 2>&1 | head -1 || true; }
    ip -6 route add fd98::/32 via fd99::3
    ip -6 route add fd98::/32 from fd97::/32 via fd99::2 || { echo "this kernel has no routes by source"; exit 77; }
    own=$(ask fd98::5 fd97::1)
    other=$(ask fd98::5 fd96::1)
    ip -6 route del fd98::/32 from fd97::/32
    later=$(ask fd98::5 fd96::1)
    ip -6 route add default via fd99::3
    ip -6 route add default from fd97::/32 via fd99::2
    default=$(ask fd95::5 fd96::1)
    echo "from fd97::1: $own"
    echo "from fd96::1: $other"
    echo "from fd96::1, once the other route is gone: $later"
    echo "defaults, from fd96::1: $default"
    [[ "$own" = *"via fd99::2"* && "$other" = *unreachable && "$later" = *"via fd99::3"* && "$default" = *"via fd99::3"* ]]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
