"""Jobs as handles: what they tell, how it is shown, and where else it is written."""
