"""The tasks of wg-quick(8): configuration files, commands, DNS, nftables, and the daemon behind `threepipe-wg`."""
