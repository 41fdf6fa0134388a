"""HTTP as the clients use it: calls and replies as values, what sends them, and when again."""
