def peers() -> None:
    """x."""
