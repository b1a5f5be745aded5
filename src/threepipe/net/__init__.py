"""What a program waits for and sends by: doorbells, sockets and the threads that wait for event loops."""
