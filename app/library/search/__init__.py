"""Which stored vectors fit a query: an index of their keys in memory, and the verdict."""
