"""Measurements of WireGuard devices, and the programs that play a device's peers."""
