"""Commands that talk to a server about its library."""
