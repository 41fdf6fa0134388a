"""Vectors as folders, in the layout people know from PEFT, and on the Hugging Face hub."""
