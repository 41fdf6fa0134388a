"""A library as files: what a backup holds, how it is written, read and compared."""
