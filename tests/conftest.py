import signal

from hypothesis import settings

# Machines are slow now and then; no test is about the time that it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# xdist's processes ignore Ctrl-C, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
