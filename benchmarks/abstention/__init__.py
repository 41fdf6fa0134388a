"""Whether the right vectors are found, or none: `python -m benchmarks.abstention`."""
