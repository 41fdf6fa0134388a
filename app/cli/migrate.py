"""`vlibrary migrate`: brings the database that `DATABASE_URL` names to this version's tables."""

from app.cli.console import print_result
from app.cli.database import database_as_it_is
from app.cli.options import AsJson, read_settings
from app.core.errors import ConfigurationError


def migrate(*, as_json: AsJson = False) -> None:
    """Create or update the tables; safe to repeat, and from several machines at once."""
    settings = read_settings()
    if settings.database_url is None:
        raise ConfigurationError(
            "There is no database to migrate: set DATABASE_URL; `vlibrary serve` migrates its own"
        )
    from app.library.migrate import current_revision, upgrade

    with database_as_it_is(settings) as database:
        before = current_revision(database.url)
        upgrade(database.url)
        after = current_revision(database.url)
    text = f"The database is at revision {after}" + ("" if before == after else f", was {before}")
    print_result({"revision": after, "before": before}, text, as_json=as_json)
