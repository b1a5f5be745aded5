"""The things that a program waits for and sends by: doorbells, sockets, and threads that wait for event loops."""
