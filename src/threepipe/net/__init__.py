"""Waiting and sockets: doorbells, threads that wait for event loops, datagram and stream sockets."""
