"""`vlibrary serve`: the processes that it starts, watches and ends."""
