# A superpacket: one TCP packet that stands for many. Ports coalesce and split; here you see them do it.
import struct

import threepipe
from threepipe import packet
from threepipe.core.coalesce import coalesce


def segment(sequence, payload):
    addresses = bytes([10, 6, 7, 1, 10, 6, 7, 2])
    number = sequence // 1280  # Of the packet, in its header.
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), number, 0x4000, 64, 6, 0) + addresses
    tcp = struct.pack("!HHIIBBHHH", 50000, 80, sequence, 1, 0x50, 0x10, 65535, 0, 0)
    whole = bytearray(ip + tcp + payload)
    packet.fix_checksums(whole)
    return whole


payload = bytes(range(256)) * 5
segments = [segment(number * len(payload), payload) for number in range(20)]
records = coalesce([memoryview(each) for each in segments], vnet_header=False, udp=False)
print(len(segments), "packets became", len(records), "record of", len(records[0]), "bytes")

bundle = threepipe.Bundle.of_records(records)
print("the bundle counts", len(bundle), "packets, and has split none of them")
print("split again, byte for byte:", [bytes(each) for each in bundle] == [bytes(each) for each in segments])

here, there = threepipe.MemoryAdapter.pair()
with here.start_session(0x20000) as program, there.start_session(0x20000) as network:
    program.send(bundle)
    print("received:", [len(each) for each in network.receive(timeout=0)])
