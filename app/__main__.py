"""`python -m app`: the command line."""

from app.cli.app import main

main()
