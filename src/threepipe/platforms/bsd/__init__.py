"""macOS and the BSDs: adapters on their TUN drivers, and sockets."""
