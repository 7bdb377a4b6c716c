"""The engine that the settings ask for: transformers or vllm."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from env.groups.vllm import segment_tokens
from env.settings import Settings
from env.sources import exports
from runtime.engines import Engine, Observer
from runtime.engines.vllm import command
from runtime.engines.vllm.device import ExternalServers, LocalServers
from runtime.engines.vllm.engine import VllmConfig, VllmEngine
from runtime.engines.vllm.replica import (
    Replica,
    describe_versions,
    local_replicas,
    package_versions,
    process_groups,
    uses_npus,
)
from runtime.model import device
from runtime.model.checkpoint import Checkpoint
from runtime.model.prompt import read_tokenizer
from runtime.urls import vllm_servers


def create_vllm_engine(settings: Settings, directory: Path, observers: Sequence[Observer]) -> Engine:
    """A vLLM engine, not started, for the checkpoint in a directory; `observers` get its events.

    Raises KitError where the checkpoint is not whole, UsageError where a setting of the servers cannot be used.
    """
    tokenizer = read_tokenizer(Checkpoint.open_without_weights(directory))
    config = VllmConfig(
        max_seqs=settings.vllm_max_seqs,
        segment_tokens=segment_tokens(settings.segment_seconds, settings.max_new_tokens),
        start_seconds=settings.vllm_start_seconds,
        drain_seconds=settings.drain_seconds,
        key=settings.vllm_key,
    )
    device: ExternalServers
    if servers := [Replica(url, url) for url in vllm_servers(settings)]:
        device = ExternalServers(
            "elsewhere",
            describe=partial(describe_versions, servers),
            package_versions=partial(package_versions, servers),
        )
        return VllmEngine(config, tokenizer, servers, device, observers)
    servers = local_replicas(command.launch_specs(settings, directory))
    device = LocalServers(
        ", ".join(server.name.removeprefix("vLLM on ") for server in servers),
        describe=partial(describe_versions, servers),
        package_versions=partial(package_versions, servers),
        process_groups=partial(process_groups, servers),
        on_npus=partial(uses_npus, servers),
    )
    return VllmEngine(config, tokenizer, servers, device, observers)


def create_engine(settings: Settings, directory: Path, observers: Sequence[Observer]) -> Engine:
    """The engine of ASR_ENGINE, not started, for the checkpoint in a directory; `observers` get its events.

    Raises KitError where the checkpoint is not whole, or the device cannot be used.
    """
    if settings.engine_name == "vllm":
        device.keep_torch_npu_out()  # the tokenizer's package imports torch

        return create_vllm_engine(settings, directory, observers)
    checkpoint = Checkpoint.open(directory)  # before the device, which takes seconds to open
    where = device.open_device(settings.device, exports=exports(settings), jit_compile=settings.jit_compile)
    from runtime.engines.transformers import TransformersEngine
    from runtime.model import load  # torch, which the device must precede

    return TransformersEngine(
        load.load(checkpoint, device=where, dtype=settings.dtype),
        max_batch=settings.max_batch,
        batch_audio_seconds=settings.batch_audio_seconds,
        batch_wait_seconds=settings.batch_wait_ms / 1000,
        observers=observers,
    )
