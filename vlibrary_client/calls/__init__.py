"""What can be asked of a server, as values; the methods of both clients are made of these."""
