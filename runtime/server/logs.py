"""The server's log on standard error: lines for people, or JSON, in one form for the kit and all libraries.

What callers send and receive is private: texts, contexts, file names, URLs. Unless ASR_LOG_CONTENT is set, an exception
is logged with its type and traceback but without its message, which may quote any of that, if a library logs it or it
is logged during a request.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from env.errors import UsageError
from env.settings import Settings
from runtime.redaction import escaped, escaped_json
from runtime.server.request_context import request_id

KIT_LOGGER = "runtime"  # the logger above all of the kit's own
LOG_LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger(__name__)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic from Python 3.11 on
    """The root logger's only handler."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(sys.stderr)
        self.content = settings.log_content
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[
                    _add_request_id,
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.stdlib.ExtraAdder(),
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                ],
                processors=[
                    _PrivateContentFilter(self.content),
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _renderer(settings.log_format),
                ],
            )
        )


def configure(settings: Settings) -> None:
    """Log as the settings say, in all threads, replacing an earlier configuration."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(settings))
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    set_level(settings.log_level)


def set_level(name: str) -> None:
    """Set the least level that is logged: debug, info, warning or error. Raises UsageError for another name.

    Libraries are logged from warning on, as their lower levels quote what they work on: the queries of URLs, the
    content of WebSockets. With ASR_LOG_CONTENT, they are logged like the kit.
    """
    if name not in LOG_LEVELS:
        raise UsageError("the log level", f"{name!r} is not possible", f"choose from {', '.join(LOG_LEVELS)}")
    logging.getLogger(KIT_LOGGER).setLevel(LOG_LEVELS[name])
    root = logging.getLogger()
    content = any(handler.content for handler in root.handlers if isinstance(handler, _Handler))
    root.setLevel(LOG_LEVELS[name] if content else max(LOG_LEVELS[name], logging.WARNING))


def capture_library_loggers() -> None:
    """Replace the handlers that libraries such as transformers install by the kit's.

    To be called after they are imported.
    """
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and any(map(_writes_to_stream, logger.handlers)):
            logger.handlers = [handler for handler in logger.handlers if not _writes_to_stream(handler)]
            logger.propagate = True


def _writes_to_stream(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


class _PrivateContentFilter:
    """Formats exceptions, and removes private content."""

    def __init__(self, content: bool) -> None:
        self._content = content

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn's second copy of some events, for a terminal
        is_kit = event["logger"].partition(".")[0] == KIT_LOGGER
        if not is_kit and not self._content:
            event["event"] = event["event"].partition("\n")[0]  # asyncio's further lines quote exceptions
        exc_info = event.pop("exc_info", None)
        if exc_info and exc_info[1]:
            with_message = self._content or (is_kit and "request_id" not in event)
            event["exception"] = _formatted(exc_info[1]) if with_message else _formatted_without_messages(exc_info[1])
        return event


def _formatted(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _formatted_without_messages(error: BaseException) -> str:
    """Format an exception as Python does, causes first, but without messages."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}"
    parts = [*([cause] if cause else []), *getattr(error, "exceptions", ())]  # a group has several
    return "\n\nled to\n\n".join([*map(_formatted_without_messages, parts), text])


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if found := request_id():
        event["request_id"] = found
    return event


def _renderer(log_format: str) -> Processor:
    if log_format == "json":
        objects = structlog.processors.JSONRenderer(ensure_ascii=False)
        return lambda logger, name, event: escaped_json(str(objects(logger, name, event)))
    lines = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, pad_level=False, sort_keys=False)
    # Whoever is quoted in a record can neither give a terminal orders nor begin a line that looks like another record.
    return lambda logger, name, event: escaped(lines(logger, name, event)).replace("\n", "\n    ")


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the server has crashed", exc_info=(kind, error, trace))


def _thread_crashed(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value:
        name = crash.thread.name if crash.thread else "?"
        log.critical("the thread %s has crashed", name, exc_info=(crash.exc_type, crash.exc_value, crash.exc_traceback))
