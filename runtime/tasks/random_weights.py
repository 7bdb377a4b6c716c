"""Stand-ins for weights that are not at hand: random-weights."""

from pathlib import Path

from invoke import Context, task

from runtime.tasks.foreseeing import foreseeing


@task(
    help={
        "config": "config.json of a Qwen3-ASR model, or a directory that has it",
        "output": "directory to make",
        "tokenizer": "directory with tokenizer and processor files; default: that of the config",
        "dtype": "bfloat16, float16 or float32",
    }
)
@foreseeing
def random_weights(_: Context, config: str, output: str, tokenizer: str = "", dtype: str = "bfloat16") -> None:
    """Make a checkpoint of a model's full size with random weights, to measure time and memory; its text is noise."""
    from runtime.measure.random_weights import draw, write
    from runtime.progress import progress

    described, made = Path(config).expanduser(), Path(output).expanduser().absolute()
    files = Path(tokenizer).expanduser() if tokenizer else described if described.is_dir() else described.parent
    blueprint = draw(described, files, dtype=dtype)
    print(f"{blueprint.tensors} tensors in {dtype}, {blueprint.size} bytes, in {len(blueprint.shards)} files")
    with progress("Writing", blueprint.size / 2**20, unit="MiB") as bar:
        write(blueprint, made, on_bytes=lambda count: bar.advance(count / 2**20))
    print(f"Written to {made}. Its text is noise, up to ASR_MAX_NEW_TOKENS: ASR_MODEL={made} invoke bench")
    print("No weights.lock vouches for it; a server starts with it only with ASR_ALLOW_UNVERIFIED_WEIGHTS=true")
