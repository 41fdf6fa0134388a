"""Commands that train and measure on this machine, without a server."""
