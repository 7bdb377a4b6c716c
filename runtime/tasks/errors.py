"""Tasks that fail in words."""

import functools
import select
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from invoke import Context, Exit

from env.errors import KitError, UsageError
from runtime import stdio

WHERE_ALL_IS = "python env/install.py cpu, or npu; in a container: make up, make shell"
Body = TypeVar("Body", bound=Callable[..., None])


def handle_errors(body: Body) -> Body:
    """Let a task end with one line, not with a traceback, where it fails for a reason that was foreseen, such as a
    package that a host without torch does not have, or a full disk behind `>`; and with none where nobody reads on, as
    in `invoke status | head`.
    """

    @functools.wraps(body)
    def run(invoked: Context, /, *args: Any, **kwargs: Any) -> None:
        try:
            if invoked.remainder:
                raise UsageError(f"-- {invoked.remainder}", "no task takes anything behind --", "leave -- out")
            with stdio.checked():
                body(invoked, *args, **kwargs)
        except KitError as error:
            raise Exit(stdio.for_reading(str(error), sys.stderr), code=error.exit_code) from None
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if find_spec(missing):  # a part of what is installed: a fault
                raise
            subject = f"invoke {body.__name__.replace('_', '-')}"
            told = KitError(subject, f"needs {missing}, which is not installed", WHERE_ALL_IS)
            raise Exit(str(told), code=told.exit_code) from None
        except KeyboardInterrupt:
            raise Exit("interrupted", code=130) from None
        except BrokenPipeError:
            if not _unread():  # a connection's, and a fault
                raise
            stdio.silence()

    return run  # type: ignore[return-value]


def _unread() -> bool:
    """Whether standard output leads into a pipe that nobody reads any more."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
