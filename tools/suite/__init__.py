"""How the suites of tasks are made from third-party pictures."""
