"""The server."""

from invoke import Context, task

from env.loading import load_settings
from runtime.tasks.foreseeing import foreseeing


@task
@foreseeing
def serve(_: Context) -> None:
    """Run the server in the foreground until it is told to stop: what the container runs."""
    from runtime.server.serve import serve as run

    run(load_settings(), say=lambda words: print(words, flush=True))
