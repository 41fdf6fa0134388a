"""Training jobs: what was asked for, its delivery, its events, and the worker's side."""
