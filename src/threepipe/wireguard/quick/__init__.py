"""The world of wg-quick: its files, the daemon behind `threepipe-wg`, DNS, nftables and the commands of hooks."""
