"""Structured logs: a constant message with fields, one JSON object a line unless a person watches.

Standard-library loggers, such as those of dependencies, go through the same formatter.
"""

import logging
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

# A logger takes a constant message and fields, such as `log.info("job claimed", job_id=...)`.
get_logger = structlog.stdlib.get_logger
# They write a line for every request that is sent, a worker's health once a second among them.
_CLIENTS: Final = ("httpx", "httpcore")


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _rendering(stream: TextIO) -> list[Processor]:
    # Tracebacks never show local variables: those hold prompts, images and secrets.
    if stream.isatty():
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)]
    as_dict = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(as_dict), structlog.processors.JSONRenderer()]


class _StandardError(logging.Handler):
    """Writes to whatever standard error is by then: a caller may have replaced and closed it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - logging says itself what went wrong
            self.handleError(record)


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not record.name.startswith(_CLIENTS)


def configure_logs(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Routes all logs of this process to one stream.

    What is less than the level (debug, info, warning, error or critical) is not written, nor each
    request that this process sends, unless for debugging. The default is standard error, since
    standard output belongs to results.
    """
    shared = _shared_processors()
    handler = _StandardError() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(stream or sys.stderr),
            ],
        )
    )
    if level != "debug":
        handler.addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            # Before any work is done for what is not written.
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
