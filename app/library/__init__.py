"""What is stored: vectors, data sets, jobs and keys in Postgres, files in an object store.

Functions take a session and hand back frozen records; they flush, and the caller commits. Rows
never leave this package. It knows no torch, no HTTP and no training.
"""
