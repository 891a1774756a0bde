"""The real servers that tests talk to: owned by the test run, on private sockets, gone when it ends."""
