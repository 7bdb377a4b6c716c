"""A task that fails ends with one line and an exit code, not with a traceback."""

import functools
import select
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from invoke import Context, Exit

from env.errors import KitError, UsageError
from runtime import stdio

INTERRUPTED = 130  # exit code, as a shell has it for Ctrl-C
INSTALL_ADVICE = "python env/install.py cpu, or npu; in a container: make up, make shell"
Body = TypeVar("Body", bound=Callable[..., None])


def handle_errors(body: Body) -> Body:
    """Decorate a task: an error that was foreseen, such as a KitError, a package that a host without torch lacks, or a
    full disk behind `>`, ends it with one line; a reader that left, as in `invoke status | head`, with none.
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
            foreseen = KitError(subject, f"needs {missing}, which is not installed", INSTALL_ADVICE)
            raise Exit(str(foreseen), code=foreseen.exit_code) from None
        except KeyboardInterrupt:
            raise Exit("interrupted", code=INTERRUPTED) from None
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
