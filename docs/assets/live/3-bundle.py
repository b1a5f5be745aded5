# A bundle: packets handed over in one call, in order. It can be measured, sliced, packed and unpacked.
import threepipe
from threepipe.echo import echo_request

here, there = threepipe.MemoryAdapter.pair()
with here.start_session(0x20000) as program, there.start_session(0x20000) as network:
    program.send(echo_request("10.6.7.1", f"10.6.7.{host}", 1, 1, payload=bytes(host * 400)) for host in range(2, 12))
    bundle = network.receive(timeout=0)
    print(len(bundle), "packets,", bundle.nbytes, "bytes, by one call")
    print("the last three:", [len(packet) for packet in bundle[-3:]])

    data = bundle.pack()  # The byte layout of Wintun's first driver.
    again = threepipe.Bundle.unpack(data)
    print("unpacked alike:", [bytes(packet) for packet in again] == [bytes(packet) for packet in bundle])
    program.send(again)  # A received bundle can be sent as it is.
