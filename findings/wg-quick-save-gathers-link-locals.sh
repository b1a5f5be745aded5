#!/bin/bash
# Each `wg-quick save` on a device in user space adds one more link-local address to the file.
#
# Seen with Debian 12's wireguard-tools 1.0.20210914-1+b1 and wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: save writes all addresses of the interface as `Address`. Linux makes a random link-local address whenever
#   a TUN device comes up, and save takes it for one that was configured. The next `up` sets it beside a new one, which
#   the next save adds. The kernel's WireGuard devices have no such address: the driver turns it off for them.
# Output seen:
#   before: 1 Address, 0 of them link-local
#   after save 1: 2 Address, 1 of them link-local
#   after save 2: 3 Address, 2 of them link-local
#   after save 3: 4 Address, 3 of them link-local
# Consequence: with `SaveConfig = true`, which saves at each `down`, the file grows by an address a restart. Set
#   `net.ipv6.conf.default.addr_gen_mode=1` before `up`; a hook comes too late, as `up` takes the link up before PostUp.
#   threepipe-wg has the kernel make no such address.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in unshare wg wg-quick wireguard-go; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
[ "$(cat /proc/sys/net/ipv6/conf/default/addr_gen_mode 2> /dev/null)" = 0 ] ||
    { echo "it needs IPv6 with addr_gen_mode 0"; exit 77; }

exec unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    ip link add fin0 type wireguard 2> /dev/null && { echo "the kernel has WireGuard"; exit 77; }
    file=/run/fin0.conf
    printf "[Interface]\nPrivateKey = %s\nAddress = 10.7.7.1/24\n" "$(wg genkey)" > "$file"
    quick() { LOG_LEVEL=silent wg-quick "$1" "$file" > /run/log 2>&1 || { cat /run/log; exit 77; }; }
    gone() { while [ -e /run/wireguard/fin0.sock ]; do sleep 0.05; done; }
    shown() { echo "$(grep -c ^Address "$file") Address, $(grep -c "^Address = fe80" "$file") of them link-local"; }
    seen="before: $(shown || true)"
    for number in 1 2 3; do
        quick up
        quick save
        quick down
        gone
        seen+=$(printf "\nafter save %s: %s" "$number" "$(shown || true)")
    done
    echo "$seen"
    [ "${seen##*: }" = "4 Address, 3 of them link-local" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
