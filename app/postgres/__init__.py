"""A Postgres of our own, run as a child process; knows no table."""
