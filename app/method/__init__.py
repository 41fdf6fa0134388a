"""The method: how in-context vectors are trained, applied and measured on a frozen backbone.

Knows torch and transformers; knows no database, no HTTP and no index.
"""
