"""What developers of the kit type, as `invoke dev.…`; operators need none of it."""

from pathlib import Path

from invoke import Context, task

from env import locks, reference
from env.sources import load_settings
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


@task(help={"output": "directory of the checkpoint; default: the embedded one is replaced"})
@handle_errors
def train_demo(_: Context, output: str = "") -> None:
    """Train the embedded demo model from nothing, judge it and write its card (two hours on two cores)."""
    from runtime.demo_recipe.train import produce

    produce(Path(output) if output else None, load_settings())


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
