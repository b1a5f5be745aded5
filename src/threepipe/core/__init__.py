"""What runs for every packet: pure Python here, the native core where it is installed (`fast` chooses)."""
