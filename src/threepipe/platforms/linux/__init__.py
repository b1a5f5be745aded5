"""Linux: TUN devices, network namespaces and netlink."""
