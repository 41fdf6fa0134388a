"""How the bundled pocket LVLM was made: its world, its words, its training and its report."""
