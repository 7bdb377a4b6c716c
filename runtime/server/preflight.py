"""What must be so before a server loads anything, told in words instead of found out later."""

import tempfile
from collections.abc import Callable

from env.loading import under_project
from env.settings import Settings
from env.stacks import active_stack, is_stack
from runtime.checkpoint_files import check_texts
from runtime.errors import KitError
from runtime.ops.weights import verify
from runtime.transcriber import model_directory


def check(settings: Settings, *, on_bytes: Callable[[int], None]) -> None:
    """Raises KitError where the server must not start: another stack than the settings want, an output directory that
    cannot be written, weights that are not what weights.lock says. `on_bytes` hears of the bytes that were hashed.

    Where others have the weights (ASR_VLLM_URL), only the small files beside them are needed, and checked.
    """
    check_stack(settings)
    check_out_dir(settings)
    if settings.engine_name == "vllm" and settings.vllm_url:
        check_texts(model_directory(settings))
    else:
        verify.require(settings, on_bytes=on_bytes)


def check_stack(settings: Settings) -> None:
    """Raises KitError where the settings are for another stack than is installed."""
    here = active_stack()
    if not is_stack(settings.stack, here):
        reason = f"{settings.stack!r} is wanted (profile {settings.profile}), but this is the {here} stack"
        raise KitError("ASR_STACK", reason, f"set ASR_PROFILE to one for the {here} stack, or use another image")


def check_out_dir(settings: Settings) -> None:
    """Raises KitError where reports, logs and compiled operators could not be written."""
    directory = under_project(settings.out_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        advice = "mount it writable, for the user that runs this"
        raise KitError(str(directory), f"cannot be written: {error.strerror}", advice) from None
