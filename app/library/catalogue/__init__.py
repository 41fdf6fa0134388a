"""The library as a whole: finding, changing, comparing and combining vectors; files in and out."""
