#!/bin/bash
# A key-value watcher of nats-py is silent for seconds after its server has restarted, though its client is connected.
#
# Seen with nats-py 2.16.0 and Debian 12's nats-server 2.9.10-1+b3, Python 3.11.7.
# Behaviour: a restart takes the watcher's consumer from the server. The client connects again in a fraction of a second
#   and says so, but the watcher gets nothing until it has missed its heartbeats, which it checks every 10 s. A value
#   that expires before (`ttl` of the bucket) is never seen.
# Output seen:
#   connected again after 0.1 s, and told of the next value 19.9 s later
#   a value of 2 s in that time: not seen
# Consequence: a program that must know the state soon makes its watcher anew whenever the connection was lost.
#   threepipe does so for the bus of a mesh.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in nats-server python3 unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "it needs root"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{ python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q nats-py==2.16.0; } ||
    { echo "nats-py cannot be installed"; exit 77; }
cat > "$folder/watch.py" << 'END'
import asyncio
import subprocess
import sys
import time

import nats


async def start():
    server = subprocess.Popen(["nats-server", "-js", "-sd", sys.argv[1], "-a", "127.0.0.1"], stderr=subprocess.DEVNULL)
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", 4222))[1].close()
            return server, time.monotonic()
        except OSError:
            await asyncio.sleep(0.05)


async def told(watcher, seconds):
    try:
        async with asyncio.timeout(seconds):
            while await anext(watcher) is None:  # The end of the values that there were.
                pass
        return True
    except TimeoutError:
        return False


async def quiet(error):
    pass


async def main():
    server, _ = await start()
    client = await nats.connect(error_cb=quiet, reconnect_time_wait=0.1)
    buckets = [await client.jetstream().create_key_value(bucket=f"b{ttl}", ttl=ttl) for ttl in (60, 2)]
    watchers = [await bucket.watchall() for bucket in buckets]
    server.terminate()
    server.wait()
    server, up = await start()
    while not client.is_connected:
        await asyncio.sleep(0.05)
    connected = time.monotonic()
    await asyncio.sleep(0.5)
    for bucket in buckets:
        await bucket.put("key", b"1")
    assert await told(watchers[0], 40)
    late = time.monotonic() - connected
    print(f"connected again after {connected - up:.1f} s, and told of the next value {late:.1f} s later")
    seen = await told(watchers[1], 15)
    print("a value of 2 s in that time:", "seen" if seen else "not seen")
    await client.close()
    server.terminate()
    return int(late < 3 or seen)


sys.exit(asyncio.run(main()))
END
unshare --net --pid --fork --kill-child bash -c 'ip link set lo up; timeout 100 "$0/venv/bin/python" "$0/watch.py" "$0/store"' "$folder"
