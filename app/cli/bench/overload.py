def overload() -> None:
    """x."""
