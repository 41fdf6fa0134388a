"""Checkpoints as they lie in folders and hub caches, read part by part."""
