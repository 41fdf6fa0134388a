"""The HTTP api: routes, bounds, errors, admission. Knows no torch, and of SQL only the sessions."""
