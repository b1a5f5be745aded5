#!/bin/bash
# babeld passes a request for a new sequence number on once: if that is lost, it holds back all repetitions for 65 s.
#
# Seen with Debian 12's babeld 1.12.1-1 on Linux 6.18.
# Behaviour: three nodes are neighbours of each other, with equal costs, so that the way around is never feasible before
#   the destination has raised its sequence number. When the link between `asker` and `target` is cut, `asker` asks
#   `between` to request that, and repeats it with every update. `between` passes the first request on, and notes it
#   without a time to resend it, but takes it for one that will be resent, and drops the others (request_redundant in
#   resend.c; 1.14 has the same). If the one datagram is lost, `asker` has no route until the note expires.
# Output seen:
#   the link is cut: another route after 0.9 s
#   the link is cut, and one request lost: another route after 65.8 s
# Consequence: the requests for a node that dies are lost, and its neighbours have them noted when it comes back. If a
#   link of it is cut soon after that, there may be no way around for a minute. A new router-id ends the notes: start
#   babeld anew with its interface, and with `random-id true`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in babeld ip nft unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "it needs root"; exit 77; }
unshare --net --mount --pid --fork --kill-child bash -euo pipefail -c '
    mount -t tmpfs none /run
    cd /run
    ip link add br0 up type bridge
    number=0
    for node in asker between target; do
        number=$((number + 1))
        ip netns add $node
        ip link add v$number up master br0 type veth peer name v0 netns $node
        ip -n $node link set v0 addrgenmode none
        ip -n $node link set lo up
        ip -n $node link set v0 up
        ip -n $node address add fe80::$number/64 dev v0 nodad
        ip -n $node address add fd00::$number/128 dev lo
        ip netns exec $node nft "add table ip6 f; add chain ip6 f in { type filter hook input priority 0; }"
        ip netns exec $node babeld -I "" -S $node -C "redistribute local ip fd00::/16 allow" \
            -C "redistribute local deny" -C "interface v0 type wired split-horizon false hello-interval 0.2" v0 \
            > $node.log 2>&1 &
    done
    filter() { ip netns exec $1 nft "flush chain ip6 f in; $2"; }
    await() {
        begin=${EPOCHREALTIME/./}
        until ip -n asker -6 route show fd00::3 | grep -q "via fe80::$1"; do
            after=$(( (${EPOCHREALTIME/./} - begin) / 100000 ))
            [ $after -lt 900 ] || { echo "no route to the target by fe80::$1: $(cat asker.log)"; exit 1; }
            sleep 0.05
        done
        after=$(( (${EPOCHREALTIME/./} - begin) / 100000 ))
    }
    from="add rule ip6 f in ip6 saddr"
    cut() { filter asker "$from fe80::3 drop"; filter target "$from fe80::1 drop; $1"; }
    await 3
    sleep 3
    cut ""
    await 2
    quick=$after
    echo "the link is cut: another route after $((quick / 10)).$((quick % 10)) s"
    filter asker ""
    filter target ""
    await 3
    sleep 3
    cut "$from fe80::2 udp dport 6696 @th,96,8 10 drop"  # Requests alone.
    sleep 2
    cut ""
    await 2
    echo "the link is cut, and one request lost: another route after $((2 + after / 10)).$((after % 10)) s"
    [ $quick -lt 50 ] && [ $after -gt 300 ] || { echo "this has changed"; exit 1; }
'
