from hypothesis import settings

# Machines are slow now and then; no test is about the time that it takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
