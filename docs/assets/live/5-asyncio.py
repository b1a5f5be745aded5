# The same session in an event loop. A program for asyncio would call asyncio.run(main()).
import asyncio

import threepipe
from threepipe.echo import echo_reply, echo_request


async def answer(session):
    async for bundle in session:
        await session.send_async([echo_reply(packet) for packet in bundle])


here, there = threepipe.MemoryAdapter.pair()
with here.start_session(0x20000) as program, there.start_session(0x20000) as network:
    answering = asyncio.create_task(answer(network))
    for sequence in range(1, 6):
        await program.send_async([echo_request("fd67::1", "fd67::2", 1, sequence, payload=bytes(5000))])
        packet = await program.receive_packet_async()
        print("answer", sequence, "of", len(packet), "bytes")
    answering.cancel()
