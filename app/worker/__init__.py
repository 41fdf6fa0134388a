"""The device worker: one process that owns the accelerator, serves and trains."""
