"""`vlibrary demo`: one vector trained, stored, found and applied, and what came of it."""
