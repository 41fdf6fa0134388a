"""What a browser is shown; everything it loads ships with the package."""
