"""How the second bundled backbone is made: `pocket-2`, which binds names to pictures in context."""
