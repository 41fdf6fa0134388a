"""Suites of tasks, every method on each, and what came of it."""
