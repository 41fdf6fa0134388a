"""A set of vectors as numbers, as the file that carries them, and what the file says of them."""
