# Two adapters, each the other's network: one end pings, the other end answers.
import threepipe
from threepipe.echo import echo_reply, echo_request
from threepipe.packet import flow

here, there = threepipe.MemoryAdapter.pair()
with here.start_session(0x20000) as program, there.start_session(0x20000) as network:
    for sequence in range(1, 9):
        request = echo_request("10.6.7.1", "10.6.7.2", 1, sequence, payload=bytes(6000))
        program.send([request])
        for packet in network.receive(timeout=0):  # All packets that are ready.
            network.send([echo_reply(packet)])
        answer = program.receive_packet(timeout=0)
        print(sequence, flow(answer), len(answer), "bytes")
