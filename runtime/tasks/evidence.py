"""What there is to show of an image: sbom."""

from pathlib import Path

from invoke import Context, task

from env.errors import KitError
from env.sources import under_project
from runtime.tasks.foreseeing import foreseeing


@task(
    help={
        "output": "file to write; default: standard output",
        "here": "of the Python and the system that run this, instead of the image",
    }
)
@foreseeing
def sbom(_: Context, output: str = "", here: bool = False) -> None:
    """Print the software bill of materials (CycloneDX, JSON) of the image that the settings mean."""
    from env.stacks import active_stack
    from runtime.files import write_whole
    from runtime.ops import image_manifest
    from runtime.ops.deploy import image
    from runtime.ops.deploy.compose import host_settings
    from runtime.weights import lockfile

    try:
        from runtime.ops import sbom as bill
    except ModuleNotFoundError as error:
        reason = f"needs {error.name}, which is not installed"
        raise KitError("invoke sbom", reason, "python env/install.py host") from None
    settings = host_settings()
    weights = lockfile.read(under_project(settings.weights_lock))
    if here:
        found = image_manifest.collect(stack=active_stack(), commit=image.revision())
        text = bill.render(found, weights=weights)
    else:
        text = bill.render(bill.image_manifest(settings), image=image.image_name(settings), weights=weights)
    if output:
        write_whole(Path(output), text)
    else:
        print(text, end="")
