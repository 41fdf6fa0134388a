"""How training chooses: settings, strength, and whether vectors help on held-out items."""
