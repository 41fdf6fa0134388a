"""`vlibrary`, and `python -m app`: the command line."""

import signal


def main() -> None:
    """Imports the commands and runs the one that is asked for."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        # A Ctrl-C within the second of imports ends it as any other: without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from app.cli.app import main as run  # noqa: PLC0415 - that is what takes the second

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
