"""The server's log on standard error: lines for people or JSON, one form for the kit and all libraries.

What callers send and get is private: texts, contexts, names of files, URLs. Unless ASR_LOG_CONTENT is set, whatever is
logged while a request is answered, and whatever a library logs, has of an exception its type and where it was raised,
but not its message, which may quote any of that.
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

KIT = "runtime"  # the logger above all of the kit's own
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log = logging.getLogger(__name__)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic from Python 3.11 on
    """The one handler there is."""

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
                    _Discretion(self.content),
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _renderer(settings.log_format),
                ],
            )
        )


def configure(settings: Settings) -> None:
    """Log as the settings say, from now on and in all threads; instead of how it was configured here before."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(settings))
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    set_level(settings.log_level)


def set_level(name: str) -> None:
    """Log what weighs at least so much: debug, info, warning or error. Raises UsageError for another name.

    Libraries are heard from warning on, as what they say below quotes what they work on: of URLs the query, of
    WebSockets the content. Where content may be logged, they are heard like the kit.
    """
    if name not in LEVELS:
        raise UsageError("the log level", f"{name!r} is not possible", f"choose from {', '.join(LEVELS)}")
    logging.getLogger(KIT).setLevel(LEVELS[name])
    root = logging.getLogger()
    content = any(handler.content for handler in root.handlers if isinstance(handler, _Handler))
    root.setLevel(LEVELS[name] if content else max(LEVELS[name], logging.WARNING))


def adopt() -> None:
    """Have libraries that brought handlers of their own, as transformers does, logged like the others.

    To be called when they are imported.
    """
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and any(map(_prints, logger.handlers)):
            logger.handlers = [handler for handler in logger.handlers if not _prints(handler)]
            logger.propagate = True


def _prints(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


class _Discretion:
    """Writes exceptions as text, and leaves out what is private."""

    def __init__(self, content: bool) -> None:
        self._content = content

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn's second copy of some events, for a terminal
        own = event["logger"].partition(".")[0] == KIT
        if not own and not self._content:
            event["event"] = event["event"].partition("\n")[0]  # asyncio's further lines quote exceptions
        raised = event.pop("exc_info", None)
        if raised and raised[1]:
            words = self._content or (own and "request_id" not in event)
            event["exception"] = _told(raised[1]) if words else _told_discreetly(raised[1])
        return event


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _told_discreetly(error: BaseException) -> str:
    """As Python would, but without messages; the causes first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = "".join(traceback.format_tb(error.__traceback__))
    told = f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}"
    parts = [*([before] if before else []), *getattr(error, "exceptions", ())]  # a group has several
    return "\n\nled to\n\n".join([*map(_told_discreetly, parts), told])


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if found := request_id():
        event["request_id"] = found
    return event


def _renderer(form: str) -> Processor:
    if form == "json":
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
