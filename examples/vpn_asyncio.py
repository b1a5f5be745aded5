"""The VPN of vpn.py as an asyncio program, which also logs flows: python vpn_asyncio.py NAME ADDRESS [PEER]"""

import asyncio
import contextlib
import sys
from collections import Counter

import threepipe
from threepipe import packet
from threepipe.packet import Flow

PORT = 4242
MTU = 1500 - 20 - 8
SECONDS = 5  # Between two reports.


class Link(asyncio.DatagramProtocol):
    """The datagrams between the two machines."""

    transport: asyncio.DatagramTransport

    def __init__(self, session: threepipe.Session, peer: str) -> None:
        self.session = session
        self.peer = (peer, PORT) if peer else None
        self.flows: Counter[Flow] = Counter()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.session.send([data], drop_invalid=True):
            self.peer = addr
            self.count(data)

    async def from_adapter(self) -> None:
        async for bundle in self.session:
            for each in bundle:
                self.count(each)
                if self.peer:
                    self.transport.sendto(each, self.peer)

    def count(self, data: bytes | memoryview) -> None:
        if flow := packet.flow(data):
            self.flows[flow] += len(data)

    async def report(self) -> None:
        while True:
            try:
                await asyncio.sleep(SECONDS)
            finally:  # At the end too.
                for flow, size in self.flows.most_common(10):
                    print(f"{flow}: {size} bytes", flush=True)
                self.flows.clear()


async def main(name: str, address: str, peer: str = "") -> None:
    with threepipe.Adapter.create(name, addresses=[address], mtu=MTU) as adapter, adapter.start_session() as session:
        link = Link(session, peer)
        loop = asyncio.get_running_loop()
        link.transport, _ = await loop.create_datagram_endpoint(lambda: link, local_addr=("0.0.0.0", PORT))
        print(f"{adapter.name} is up with {address}", flush=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.from_adapter())
            tasks.create_task(link.report())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
