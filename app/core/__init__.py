"""What every room may use: errors, settings, logs, identifiers and the vector file format.

This package knows no torch, no SQL and no HTTP.
"""
