"""What a container may take of its host: compose and Kubernetes agree with what the settings let a server hold."""

import math
import re
from pathlib import Path
from typing import Any

import kustomize
import pytest
from cluster import KUBERNETES, folder_of, settings_of
from hosting import A2, described
from kustomize import only, pod_spec, server
from serving import held

from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime import audio, demo
from runtime.audio import Limits
from runtime.ops.deploy import limits
from runtime.ops.deploy.compose_project import COMPOSE
from runtime.ops.deploy.limits import Load
from runtime.ops.deploy.override import load
from runtime.server import service, uploads
from runtime.transcriber import Transcriber

WEIGHTS = 4_700_000_000  # bytes of the 1.7B model
UNITS = {"m": 1, "g": 1024, "Mi": 1, "Gi": 1024}


def mib(quantity: str) -> int:
    """`2560Mi`, `31744m` or `1g` in MiB."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def tmp(service: dict[str, Any]) -> int:
    """MiB of a container's /tmp."""
    (mounted,) = service["tmpfs"]
    assert mounted.startswith("/tmp:exec,mode=1777,size=")
    return mib(mounted.rpartition("=")[2])


def compose(tmp_path: Path, **variables: str) -> dict[str, Any]:
    """The server's container on a host without NPUs."""
    return described(Path("/"), tmp_path, **variables)


def test_the_memory_holds_all_that_callers_may_bring(tmp_path: Path) -> None:
    settings = load_settings({})
    made = compose(tmp_path)
    files = 2 * settings.max_audio_seconds * 64_000 / 2**20  # long ones, decoded
    assert mib(made["mem_limit"]) > settings.spool_most_mib + files + settings.max_waiting
    assert tmp(made) >= settings.spool_most_mib + 512
    assert 1000 < made["pids_limit"] < 10_000
    assert "cpus" not in made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASR_MAX_AUDIO_SECONDS", "86400"),
        ("ASR_MAX_WAITING", "5000"),
        ("ASR_MAX_BATCH", "256"),
        ("ASR_UPLOAD_MAX_MIB", "2048"),
        ("ASR_URL_MAX_MIB", "2048"),
        ("ASR_SPOOL_MAX_MIB", "8192"),
    ],
)
def test_more_of_anything_is_more_memory(name: str, value: str, tmp_path: Path) -> None:
    before, after = compose(tmp_path), compose(tmp_path, **{name: value})
    assert mib(after["mem_limit"]) >= mib(before["mem_limit"]) + 1024
    assert (tmp(after) > tmp(before)) == name.endswith("_MIB")


def test_an_operator_has_the_last_word(tmp_path: Path) -> None:
    chosen = {"ASR_CONTAINER_MEMORY_MIB": "6000", "ASR_CONTAINER_PIDS": "500", "ASR_CONTAINER_CPUS": "2.5"}
    made = compose(tmp_path, **chosen)
    assert (made["mem_limit"], made["pids_limit"], made["cpus"]) == ("6000m", 500, 2.5)
    assert not chosen.keys() & made["environment"].keys()


def test_eight_npus_of_vllm_fit_their_host() -> None:
    settings = load_settings({"ASR_PROFILE": A2, "ASR_STACK": "vllm", "ASR_NPUS": "0-7"})
    one, eight = (Load(engines, WEIGHTS, 1024) for engines in (1, 8))
    assert load(settings).engines == 8
    assert limits.memory_mib(settings, one) * 4 < limits.memory_mib(settings, eight) < 512 * 1024


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("another profile", Load(1, WEIGHTS, 10240)),
        ("vLLM", Load(1, WEIGHTS, 1024)),
        ("one NPU", Load(1, WEIGHTS, 1024)),
        ("more NPUs", Load(8, WEIGHTS, 1024)),
    ],
)
def test_the_readmes_have_the_figures(name: str, load: Load) -> None:
    profile = {"ASR_PROFILE": "atlas-300i-duo" if name == "another profile" else A2}
    settings = load_settings(profile | ({"ASR_STACK": "vllm"} if name in ("vLLM", "more NPUs") else {}))
    memory = limits.memory_mib(settings, load) // 1024
    kubernetes = (KUBERNETES / "README.md").read_text(encoding="utf-8")
    if name == "one NPU":
        container = mib(limits.limits(settings, load)["mem_limit"])
        page = (PROJECT / "docker" / "README.md").read_text(encoding="utf-8")
        assert f"{math.ceil(container / 1024)} GiB with one NPU" in page
    elif name == "more NPUs":
        (each,) = re.findall(r"and (\d+)Gi more for each", kubernetes)
        assert memory <= 36 + 7 * int(each)
    else:
        assert re.search(rf"{memory}Gi of memory", kubernetes)


def test_a_front_has_no_weights() -> None:
    settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": "http://10.0.0.7:8000", "ASR_NPUS": "0-7"})
    assert load(settings) == Load(1, 0, 0)


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_decoded_audio_is_what_the_server_holds(engine: str, transcriber: Transcriber) -> None:
    settings = load_settings({"ASR_ENGINE": engine, "ASR_MAX_BATCH": "5", "ASR_VLLM_MAX_SEQS": "100"})
    _, still = held(transcriber)
    still.together = settings.max_batch
    if engine == "vllm":
        still.together, still.loaded = settings.vllm_max_seqs, None
    files = (
        service.short_slots(still) * service.LONG_AUDIO_SECONDS,
        service.long_slots(still, settings) * settings.max_audio_seconds,
    )
    assert limits.audio_mib(settings, Load(1, 0, 0)) >= sum(files) * 64_000 / 2**20


def test_helper_processes_have_room_for_what_they_may_take() -> None:
    settings = load_settings({})
    longest, size = settings.max_audio_seconds, settings.upload_max_mib << 20
    fixed = limits.HELPER + limits.HELPER_SECOND * longest
    starts_with = 64 << 20
    assert audio.bounds(size, Limits(longest)).memory + starts_with <= (fixed + settings.upload_max_mib / 8) * 2**20
    assert uploads.helper_limits(size).memory + starts_with <= (fixed + settings.upload_max_mib) * 2**20


@pytest.mark.parametrize(("name", "weights"), [("npu", WEIGHTS), ("cpu", limits.weights_of(demo.CHECKPOINT))])
def test_a_pod_has_as_much_as_a_container(name: str, weights: int, tmp_path: Path) -> None:
    resources = kustomize.build(folder_of(name, tmp_path))
    settings: Settings = settings_of(resources)
    asked = server(resources)["resources"]
    volumes = {v["name"]: v["emptyDir"] for v in pod_spec(only(resources, "Deployment"))["volumes"] if "emptyDir" in v}
    needed = limits.memory_mib(settings, Load(1, weights, mib(volumes["shm"]["sizeLimit"])))
    assert mib(asked["limits"]["memory"]) >= needed
    assert mib(volumes["tmp"]["sizeLimit"]) >= limits.tmp_mib(settings)
    assert "medium" not in volumes["tmp"]  # else it would be memory
    assert mib(asked["requests"]["ephemeral-storage"]) > mib(volumes["tmp"]["sizeLimit"])


def test_every_container_has_limits(tmp_path: Path) -> None:
    services = kustomize.load(COMPOSE)["services"]
    services["asr"] |= compose(tmp_path)
    for found in services.values():
        assert {"mem_limit", "pids_limit"} <= found.keys()
