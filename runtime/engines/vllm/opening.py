"""The engine vllm, from the settings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from env.settings import Settings
from runtime.engines import Engine, Observer
from runtime.engines.vllm import flags
from runtime.engines.vllm.device import Children, Elsewhere
from runtime.engines.vllm.engine import VllmEngine
from runtime.engines.vllm.servers import elsewhere, groups, on_npus, packages, started, versions
from runtime.model.prompt import read_wording


def create(settings: Settings, directory: Path, observers: Sequence[Observer]) -> Engine:
    """An engine whose servers decode with the checkpoint in a directory, not started; `observers` will hear it.

    Raises KitError where the checkpoint is not whole, UsageError where a setting of the servers cannot be used.
    """
    wording = read_wording(directory)
    device: Elsewhere
    if servers := elsewhere(settings):
        device = Elsewhere("elsewhere", told=partial(versions, servers), packages=partial(packages, servers))
        return VllmEngine(settings, wording, servers, device, observers)
    servers = started(flags.orders(settings, directory))
    device = Children(
        ", ".join(server.name.removeprefix("vLLM on ") for server in servers),
        told=partial(versions, servers),
        packages=partial(packages, servers),
        groups=partial(groups, servers),
        npus=partial(on_npus, servers),
    )
    return VllmEngine(settings, wording, servers, device, observers)
