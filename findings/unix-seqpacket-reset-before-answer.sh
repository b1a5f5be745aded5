#!/bin/bash
# SOCK_SEQPACKET tells ECONNRESET before the answer that waits, and SOCK_STREAM after it.
#
# Seen on Linux 6.18 with CPython 3.11.7.
# Behaviour: a server sends an answer and closes its Unix socket without reading a request that has arrived. The answer
#   waits at the client. Its first recv of a SOCK_SEQPACKET fails with ECONNRESET all the same, the second returns the
#   answer, and the third the end. A SOCK_STREAM returns the answer first. unix(7) says nothing of it.
# Output seen:
#   SOCK_SEQPACKET: ECONNRESET, b'refused', b''
#   SOCK_STREAM: b'refused', ECONNRESET, b''
# Consequence: a client that takes ECONNRESET for the end loses the reason why it was refused. Receive once more after
#   it, or have the server read before it closes.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
command -v python3 > /dev/null || { echo "python3 is not installed"; exit 77; }
[ "$(uname -s)" = Linux ] || { echo "this is about Linux"; exit 77; }

found=$(python3 - << 'END'
import errno, socket

for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
    client, server = socket.socketpair(socket.AF_UNIX, kind)
    client.send(b"a request")
    server.send(b"refused")
    server.close()
    seen = []
    for _ in range(3):
        try:
            seen.append(repr(client.recv(100)))
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
    client.close()
    print(f"{kind.name}: {', '.join(seen)}")
END
)
echo "$found"
expected="SOCK_SEQPACKET: ECONNRESET, b'refused', b''
SOCK_STREAM: b'refused', ECONNRESET, b''"
[ "$found" = "$expected" ]
