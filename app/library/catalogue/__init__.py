"""The library as a whole: finding, changing many at once, comparing and combining vectors."""
