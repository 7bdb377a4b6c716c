"""What developers of the kit type, as `invoke dev.…`; operators need none of it."""

import os
import subprocess
import sys
from pathlib import Path

from invoke import Context, Exit, task

from env import locks, reference
from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.tasks.errors import handle_errors


@task
@handle_errors
def lock(_: Context) -> None:
    """Resolve env/stacks.toml into the locks in env/locks (needs the package index and the dev stack)."""
    for path in locks.write_locks():
        print(path.name)


@task
@handle_errors
def readme(_: Context) -> None:
    """Write the tables of settings and versions into env/README.md and env/README.zh-CN.md."""
    for path in reference.refresh():
        print(f"{path.name} renewed")


@task
@handle_errors
def translations(_: Context) -> None:
    """Bring the catalogue of the Chinese text up to date with the code, and compile it; names what has no Chinese."""
    from runtime.tasks import catalogue

    for entry in catalogue.refresh():
        if entry.id and not entry.string:
            print(f"no Chinese: {entry.id}")


@task(help={"output": "directory of the checkpoint; default: the embedded one is replaced"})
@handle_errors
def train_demo(_: Context, output: str = "") -> None:
    """Train the embedded demo model from nothing, judge it and write its card (two hours on two cores)."""
    _of_the_clone("runtime/demo_recipe", "train-demo")
    from runtime.demo_recipe.train import build

    build(Path(output) if output else None, load_settings())


@task(
    help={
        "config": "config.json of a Qwen3-ASR model, or a directory that has it",
        "output": "directory to make",
        "tokenizer": "directory with tokenizer and processor files; default: that of the config",
        "dtype": "bfloat16, float16 or float32",
    }
)
@handle_errors
def random_weights(_: Context, config: str, output: str, tokenizer: str = "", dtype: str = "bfloat16") -> None:
    """Make a checkpoint of a model's full size with random weights, to measure time and memory; its text is noise."""
    from runtime.measure.random_weights import draw, write
    from runtime.progress import progress_bar

    described, made = Path(config).expanduser(), Path(output).expanduser().absolute()
    files = Path(tokenizer).expanduser() if tokenizer else described if described.is_dir() else described.parent
    blueprint = draw(described, files, dtype=dtype)
    print(f"{blueprint.tensors} tensors in {dtype}, {blueprint.size} bytes, in {len(blueprint.shards)} files")
    with progress_bar("Writing", blueprint.size / 2**20, unit="MiB") as bar:
        write(blueprint, made, on_bytes=lambda count: bar.advance(count / 2**20))
    print(f"Written to {made}. Its text is noise, up to ASR_MAX_NEW_TOKENS: ASR_MODEL={made} invoke bench")
    print("No weights.lock vouches for it; a server starts with it only with ASR_ALLOW_UNVERIFIED_WEIGHTS=true")


@task
@handle_errors
def host_cost(_: Context) -> None:
    """Count kernels launched and waits per token, of the kit and of qwen-asr, on the tests' simulated NPU."""
    _print_figures("host-cost")


@task
@handle_errors
def first_validation(_: Context) -> None:
    """Compare the kit with qwen-asr and with the first validation's script, rebuilt from what is known of it."""
    _print_figures("first-validation")


@task
@handle_errors
def queue_memory(_: Context) -> None:
    """Measure the memory that 500 waiting requests hold."""
    _print_figures("queue-memory")


def _print_figures(name: str) -> None:
    """Run the tests' program of that name."""
    support = _of_the_clone("tests/support", name)
    path = os.pathsep.join(filter(None, [str(PROJECT), str(support), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "developer_figures", name]
    code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    if code:
        raise Exit(code=code)


def _of_the_clone(folder: str, name: str) -> Path:
    """A folder that images lack. Raises KitError, about the task of that name, where it is not there."""
    if not (PROJECT / folder).is_dir():
        reason = f"needs {folder}, which a clone of the kit has and an image lacks"
        raise KitError(f"invoke dev.{name}", reason, "in a clone: make install, then the same command")
    return PROJECT / folder
