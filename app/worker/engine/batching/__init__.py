"""How rows are decoded together: in flight, or in batches that end together."""
