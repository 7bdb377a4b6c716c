"""The kit itself: config, versions, and what is handed over with it, sbom and bundle."""

from pathlib import Path

from invoke import Context, Exit, task

from env import reference, stacks
from env.errors import KitError
from env.sources import load_settings, under_project
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


@task(
    help={
        "output": "file to write; default: standard output",
        "here": "of the Python and the system that run this, instead of the image",
    }
)
@handle_errors
def sbom(_: Context, output: str = "", here: bool = False) -> None:
    """Print the software bill of materials (CycloneDX, JSON) of the image that the settings mean."""
    from runtime.files import write_whole
    from runtime.ops import image_manifest
    from runtime.ops.deploy import image
    from runtime.ops.deploy.compose import host_settings
    from runtime.weights import lockfile

    try:
        from runtime.ops import sbom as writer
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        raise KitError("invoke sbom", reason, "python env/install.py host") from None
    settings = host_settings()
    weights = lockfile.read(under_project(settings.weights_lock))
    if here:
        found = image_manifest.collect(stack=stacks.active_stack(), commit=image.revision())
        document = writer.render(found, weights=weights)
    else:
        document = writer.render(writer.image_manifest(settings), image=image.image_name(settings), weights=weights)
    if output:
        write_whole(Path(output), document)
    else:
        print(document, end="")


@task(
    help={"output": "directory that the bundle goes into; default: out", "tar": "write one tar instead of a directory"}
)
@handle_errors
def bundle(_: Context, output: str = "", tar: bool = False) -> None:
    """Write all that a host without internet needs: image, weights, kit, settings, tools, checksums, installer."""
    from runtime.ops import bundle as bundling
    from runtime.ops.deploy.compose import host_settings

    settings = host_settings()
    target = Path(output) if output else under_project(settings.out_dir)
    path = bundling.write(settings, target, as_tar=tar, say=lambda words: print(words, flush=True))
    unpack = f"tar -xf {path.name} && cd {path.stem}" if tar else f"cd {path.name}"
    signers = " --signers FILE" if settings.bundle_key else ""
    print(f"Written to {path}\nOn the other host: {unpack} && ./install.sh{signers}")
