"""How `docs/results.md` is written from `docs/results.json`."""
