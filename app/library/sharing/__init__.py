"""Vectors on their way out and in, with all that is known of them."""
