"""One check of every data set at the door, in a process of its own."""
