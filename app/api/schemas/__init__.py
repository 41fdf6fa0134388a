"""Bodies of requests and responses, one module a resource. Only fields and bounds, no logic."""
