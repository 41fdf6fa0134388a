"""The database's revisions, applied by `app.library.migrate`."""
