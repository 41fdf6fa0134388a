"""One check of every upload, in a process of its own."""
