"""How things that ship with VLibrary are made; not part of what is installed."""
