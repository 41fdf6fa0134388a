"""`vlibrary bench`: the figures of docs/benchmarks, measured in one run and told as ratios."""
