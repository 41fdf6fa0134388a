"""Settings as commands take them: the environment, with the options given on top."""

from pydantic import ValidationError

from app.core.errors import ConfigurationError
from app.core.settings import Settings


def read_settings(**options: object) -> Settings:
    """The settings of this process; an option that is None was not given.

    Raises:
        ConfigurationError: A value is out of bounds, or two contradict each other.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        # The rejected values themselves may be secrets, so only places and reasons are told.
        reasons = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"the settings cannot be used: {reasons}") from error
