"""How well a backbone answers, under which condition and by which score."""
