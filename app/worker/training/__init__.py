"""Training jobs of a worker: from the queue to a stored vector."""
