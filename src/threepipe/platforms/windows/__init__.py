"""Windows: the Wintun driver through its library, and the IP Helper."""
