"""WireGuard: the protocol without I/O, and a device that joins it to an adapter and to UDP sockets."""
