"""Readers of data sets in their official formats, one file a format."""
