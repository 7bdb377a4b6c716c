"""What is handed over."""

from pathlib import Path

from invoke import Context, task

from runtime.tasks.foreseeing import foreseeing


@task(
    help={"output": "directory that the bundle goes into; default: out", "tar": "write one tar instead of a directory"}
)
@foreseeing
def bundle(_: Context, output: str = "", tar: bool = False) -> None:
    """Write all that a host without internet needs: image, weights, kit, settings, tools, checksums, installer."""
    from env.sources import under_project
    from runtime.ops import bundle as bundling
    from runtime.ops.deploy.compose import host_settings

    settings = host_settings()
    target = Path(output) if output else under_project(settings.out_dir)
    path = bundling.write(settings, target, as_tar=tar, say=lambda words: print(words, flush=True))
    unpack = f"tar -xf {path.name} && cd {path.stem}" if tar else f"cd {path.name}"
    signers = " --signers FILE" if settings.bundle_key else ""
    print(f"Written to {path}\nOn the other host: {unpack} && ./install.sh{signers}")
