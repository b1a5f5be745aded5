"""A library that keeps Wintun's contract without a driver: its C sources, its builder, its ctypes."""
