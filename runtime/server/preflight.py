"""What must be so before a server loads anything, told in words instead of found out later."""

import logging
import tempfile
from collections.abc import Callable

from env.errors import KitError, UsageError
from env.settings import Settings
from env.sources import under_project
from env.stacks import active_stack, is_stack
from runtime.files import make_private
from runtime.host import npu_host
from runtime.model.checkpoint import check_texts
from runtime.ops import cache
from runtime.ops.deploy.image import cure
from runtime.transcriber import model_directory
from runtime.weights import verify

log = logging.getLogger(__name__)


def check(settings: Settings, *, on_bytes: Callable[[int], None]) -> None:
    """Raises KitError where the server must not start: vLLM is wanted without it, or another stack than is here; the
    demo model, on an NPU host where nobody asked for it; an output directory that cannot be written, weights that are
    not what weights.lock says. `on_bytes` hears of the bytes that were hashed.

    Where others have the weights (ASR_VLLM_URL), only the small files beside them are needed, and checked.
    """
    if settings.vllm_alone:
        raise UsageError("ASR_VLLM_ALONE", "wants vLLM without the server, and this is the server", "invoke vllm")
    npu_host.check_demo(settings)
    check_stack(settings)
    check_out_dir(settings)
    prune_cann_log(settings)
    if settings.engine_name == "vllm" and settings.vllm_url:
        check_texts(model_directory(settings))
    else:
        verify.require(settings, on_bytes=on_bytes)


def check_stack(settings: Settings) -> None:
    """Raises KitError where the settings are for another stack than is installed."""
    here = active_stack()
    if not is_stack(settings.stack, here):
        reason = f"is {settings.stack} ({settings.origin('stack')}), but this is the {here} stack"
        raise KitError("ASR_STACK", reason, f"{cure(settings, here)}, or use another image")


def prune_cann_log(settings: Settings) -> None:
    """Keep CANN's logs bounded. That they cannot be removed keeps no server from starting."""
    try:
        freed = cache.prune(under_project(settings.out_dir) / cache.FOLDER)
    except OSError as error:
        log.warning("CANN's logs are not kept within %d MiB: %s", cache.MOST >> 20, error)
        return
    if freed:
        log.info("removed the oldest %d MiB of CANN's logs", freed >> 20)


def check_out_dir(settings: Settings) -> None:
    """Raises KitError where reports, logs and compiled operators could not be written."""
    directory = under_project(settings.out_dir)
    try:
        make_private(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        advice = "mount it writable, for the user that runs this"
        raise KitError(str(directory), f"cannot be written: {error.strerror}", advice) from None
