"""Tasks that fail in words."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from invoke import Exit

from runtime.errors import KitError

Body = TypeVar("Body", bound=Callable[..., None])


def foreseeing(body: Body) -> Body:
    """Let a task end with one line, not with a traceback, where it fails for a reason that was foreseen."""

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except KitError as error:
            raise Exit(str(error), code=error.exit_code) from None

    return run  # type: ignore[return-value]
