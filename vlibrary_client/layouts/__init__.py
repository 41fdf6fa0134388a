"""Data sets as they lie on disks and hubs, read as one kind of item. One file a layout.

The SDK packs what it uploads with these readers, and the server reads uploads with them, so that a
source means the same wherever it is read. Nothing is decoded here, and nothing is fetched.
"""
