"""The kit itself: settings, versions, locks, documents."""

from invoke import Context, Exit, task

from env import locks, reference, stacks
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


@task
@handle_errors
def lock(_: Context) -> None:
    """Resolve env/stacks.toml into the locks under env/locks (needs the package index and the dev stack)."""
    for path in locks.write_locks():
        print(path.name)


@task
@handle_errors
def readme(_: Context) -> None:
    """Write the tables of settings and versions into env/README.md and env/README.zh-CN.md."""
    from env import reference as writer

    for path in writer.refresh():
        print(f"{path.name} renewed")
