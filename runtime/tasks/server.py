"""The server."""

import logging

from invoke import Context, Exit, task

from env.loading import load_settings
from runtime.errors import KitError
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def serve(_: Context) -> None:
    """Run the server in the foreground until it is told to stop: what the container runs."""
    from runtime.server.serve import serve as run

    settings = load_settings()
    try:
        run(settings)
    except KitError as error:
        logging.getLogger("runtime.server").critical("%s", error)  # in the form of the log that it ends
        raise Exit(code=error.exit_code) from None
