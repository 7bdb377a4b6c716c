"""The kit itself: its settings and versions."""

from invoke import Context, Exit, task

from env import reference, stacks
from env.sources import load_settings
from runtime.tasks.errors import handle_errors


@task
@handle_errors
def config(_: Context) -> None:
    """Print every setting, its value and where it came from."""
    from runtime import tables

    tables.console().print(tables.settings_table(reference.describe(load_settings())))


@task(help={"stack": "npu, vllm, cpu, host or dev; default: the one that is installed"})
@handle_errors
def versions(_: Context, stack: str = "") -> None:
    """Print installed against pinned versions; exit code 1 on a difference that matters."""
    from runtime import tables

    name = stack or stacks.active_stack()
    differences = stacks.compare(name)
    tables.console().print(tables.differences_table(name, differences))
    if any(difference.severity == "matters" for difference in differences):
        raise Exit(f"{name}: not the pinned stack → python env/install.py {name}", code=1)
