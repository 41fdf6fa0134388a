"""Requests of a worker: from a message to a sequence of the engine and back."""
