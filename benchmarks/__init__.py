"""The figures of docs/benchmarks, measured in one run and told as ratios: one file a figure."""
