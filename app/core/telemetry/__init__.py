"""Traces: whether there are any, what travels of them, and what is taken out of them."""
