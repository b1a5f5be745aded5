"""Packet capture: reading and writing capture files, and watching a running pipe or adapter."""
