def rest() -> None:
    """x."""
