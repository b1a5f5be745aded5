# Wintun's ring: 128 KiB between a head and a tail. A full ring refuses the newest packets.
import threepipe
from threepipe.echo import echo_request

packets = [echo_request("fd67::1", "fd67::2", 1, number, payload=bytes(9000)) for number in range(20)]

here, there = threepipe.MemoryAdapter.pair()
with here.start_session(0x20000) as program, there.start_session(0x20000) as network:
    accepted = program.send(packets)
    print(f"{accepted} of {len(packets)} packets fit in; nothing is lost silently")
    print(len(network.receive(timeout=0)), "packets received: the head has reached the tail")
    print(program.send(packets[accepted:]), "more are sent: the tail goes around the end")
    print(len(network.receive(timeout=0)), "packets received")
    print(program.statistics)
