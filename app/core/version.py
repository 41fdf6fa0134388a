"""The version of this software, also when it runs from a checkout that was never installed."""

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "0+checkout"


def software_version() -> str:
    """The installed package's version, or a mark that it is not installed."""
    try:
        return version("vlibrary")
    except PackageNotFoundError:
        return UNKNOWN
