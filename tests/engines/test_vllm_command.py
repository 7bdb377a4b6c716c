"""How vLLM is started: the command and the environment that the settings mean."""

import json
import os
import sys
from pathlib import Path

import pytest

from env.errors import KitError, UsageError
from env.sources import PROJECT, load_settings
from runtime.engines.vllm import command

WEIGHTS = Path("/weights/Qwen3-ASR-1.7B")


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without NPUs, outside a container."""
    monkeypatch.setattr(command, "DEV", tmp_path)
    for name in (command.VISIBLE_DEVICES, command.IMAGE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def give(host: Path, count: int) -> None:
    """NPUs for the host."""
    for number in range(count):
        (host / f"davinci{number}").touch()
    (host / "davinci_manager").touch()


def specs(**variables: str) -> list[command.LaunchSpec]:
    settings = load_settings({f"ASR_{name}": text for name, text in variables.items()})
    return command.launch_specs(settings, WEIGHTS)


def value(spec: command.LaunchSpec, flag: str) -> str:
    """What a flag is given."""
    return spec.command[spec.command.index(flag) + 1]


def visible(**variables: str) -> list[tuple[str, str | None]]:
    """The names of the servers, and the NPUs that CANN is told to show them."""
    return [(spec.name, spec.environment.get(command.VISIBLE_DEVICES)) for spec in specs(**variables)]


def test_one_server_on_a_cpu() -> None:
    (spec,) = specs(MODEL="weights/Mine", VLLM_PYTHON=sys.executable, DRAIN_SECONDS="12.5", VLLM_MAX_SEQS="16")
    assert spec.name == "vLLM on cpu"
    assert spec.command[:2] == (sys.executable, str(command.LAUNCHER))
    assert value(spec, "--host") == "127.0.0.1"
    assert value(spec, "--port") == str(spec.port)
    assert value(spec, "--model") == str(WEIGHTS)
    assert value(spec, "--served-model-name") == "Mine"
    assert value(spec, "--dtype") == "float32"
    assert value(spec, "--max-model-len") == value(spec, "--max-num-batched-tokens") == "4096"
    assert value(spec, "--max-num-seqs") == "16"
    assert value(spec, "--shutdown-timeout") == "13"
    assert json.loads(value(spec, "--limit-mm-per-prompt")) == {"audio": 1}
    assert Path(value(spec, "--chat-template")).read_text(encoding="utf-8") == "{{ messages[0]['content'] }}"
    assert "--enforce-eager" in spec.command
    assert "--gpu-memory-utilization" not in spec.command
    assert spec.environment["VLLM_HOST_IP"] == "127.0.0.1"
    assert spec.environment["HF_HUB_OFFLINE"] == "1"
    assert spec.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in spec.environment


def test_servers_on_one_cpu_have_ports_of_their_own_and_no_cores() -> None:
    found = specs(DEVICE="cpu", VLLM_REPLICAS="3")
    assert [spec.name for spec in found] == ["vLLM on cpu, 1 of 3", "vLLM on cpu, 2 of 3", "vLLM on cpu, 3 of 3"]
    assert len({spec.port for spec in found}) == 3
    assert {spec.environment["VLLM_CPU_OMP_THREADS_BIND"] for spec in found} == {"nobind"}


def test_on_npus(host: Path) -> None:
    give(host, 4)
    (spec,) = specs(PROFILE="atlas-800-a2", VLLM_MEMORY_SHARE="0.5", VLLM_EAGER="false", OP_CACHE_DIR=str(host / "ops"))
    assert value(spec, "--dtype") == "bfloat16"
    assert value(spec, "--gpu-memory-utilization") == "0.5"
    assert "--enforce-eager" not in spec.command
    assert spec.environment["KIT_DEVICE"] == "npu"
    assert spec.environment["TASK_QUEUE_ENABLE"] == "2"
    assert spec.environment["ACL_OP_COMPILER_CACHE_DIR"] == str(host / "ops")
    assert (host / "ops").is_dir()
    assert "VLLM_CPU_KVCACHE_SPACE" not in spec.environment


def test_each_npu_that_is_given_gets_a_server(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(host, 8)
    assert visible(DEVICE="auto") == [("vLLM on npu:0", "0")]
    assert visible(NPUS="2-3,6") == [("vLLM on npu:2", "2"), ("vLLM on npu:3", "3"), ("vLLM on npu:6", "6")]
    assert visible(NPUS="2-3,6", VLLM_REPLICAS="2") == [("vLLM on npu:2", "2"), ("vLLM on npu:3", "3")]
    assert visible(NPUS="2-3,6", DEVICE="npu:5") == [("vLLM on npu:5", "5")]
    monkeypatch.setenv(command.VISIBLE_DEVICES, "4,7")  # CANN counts these from 0, and so does the kit
    assert visible(NPUS="0-7") == [("vLLM on npu:0", "4"), ("vLLM on npu:1", "7")]
    assert visible(DEVICE="npu:1") == [("vLLM on npu:1", "7")]
    with pytest.raises(UsageError, match=r"npu:2, as ASCEND_RT_VISIBLE_DEVICES=4,7 leaves 2"):
        specs(DEVICE="npu:2")
    assert visible(DEVICE="cpu") == [("vLLM on cpu", "4,7")]


def test_a_container_uses_all_npus_that_it_has(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(host, 2)
    monkeypatch.setenv(command.IMAGE_VARIABLE, "1")
    assert visible(DEVICE="npu") == [("vLLM on npu:0", "0"), ("vLLM on npu:1", "1")]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"DEVICE": "npu", "VLLM_REPLICAS": "2"},
            "ASR_VLLM_REPLICAS: 2 servers want an NPU each, and there is only npu:0",
        ),
        ({"DEVICE": "npu:1", "VLLM_REPLICAS": "2"}, "ASR_DEVICE=npu:1 is one → export ASR_DEVICE=npu"),
        ({"NPUS": "3-1", "DEVICE": "npu"}, "'3-1' runs backwards"),
        (
            {"VLLM_MAX_MODEL_LEN": "1024", "SEGMENT_SECONDS": "60"},
            r"MODEL_LEN: 1024 .* 13 for each of 60 s .* 512 for the answer .* export ASR_VLLM_MAX_MODEL_LEN=1420",
        ),
        ({"VLLM_PYTHON": "/nowhere/python"}, "ASR_VLLM_PYTHON: /nowhere/python is no program"),
        ({"VLLM_FLAGS": "--seed '1"}, "ASR_VLLM_FLAGS: .*: No closing quotation → check its quotes"),
        ({"VLLM_FLAGS": "serve --seed 1"}, "begins with 'serve', expected --flag value"),
        ({"VLLM_FLAGS": "--seed 1 --port 8000"}, "--port: the kit sets --port → leave it out"),
        ({"VLLM_FLAGS": "--dtype=auto"}, "--dtype=auto: the kit sets --dtype → set ASR_DTYPE"),
        ({"VLLM_FLAGS": "--max_model_len 9"}, "the kit sets --max-model-len → set ASR_VLLM_MAX_MODEL_LEN"),
        ({"VLLM_FLAGS": "--no-enforce-eager"}, "the kit sets --enforce-eager → set ASR_VLLM_EAGER"),
        ({"VLLM_FLAGS": "--limit-mm-per-prompt.audio 9"}, "the kit sets --limit-mm-per-prompt"),
        ({"VLLM_FLAGS": "--por 9"}, "the kit sets --port"),
        ({"VLLM_FLAGS": "-dp 2"}, "the kit sets -dp → set ASR_VLLM_REPLICAS"),
    ],
)
def test_what_cannot_be_is_refused(variables: dict[str, str], words: str) -> None:
    with pytest.raises(KitError, match=words):
        specs(**variables)


def test_further_flags_come_last_and_as_they_are() -> None:
    text = """--hf-overrides '{"a b": -1}' --max-num-batched-tokens 8192 -cc.mode=none"""
    (spec,) = specs(VLLM_FLAGS=text)
    assert spec.command[-5:] == ("--hf-overrides", '{"a b": -1}', "--max-num-batched-tokens", "8192", "-cc.mode=none")


def test_what_is_the_kits_own_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASR_API_KEYS", "TORCH_DEVICE_BACKEND_AUTOLOAD", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    monkeypatch.setenv("LD_LIBRARY_PATH", os.fspath(PROJECT))
    (spec,) = specs(VLLM_KEY="hush")
    assert "secret" not in spec.environment.values()
    assert "hush" not in spec.environment.values()
    assert spec.environment["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert spec.environment["LD_LIBRARY_PATH"] == os.fspath(PROJECT)


def test_a_lone_server_listens_where_the_kit_would_and_asks_for_the_key(host: Path) -> None:
    give(host, 2)
    settings = load_settings(
        {"ASR_NPUS": "0-1", "ASR_VLLM_REPLICAS": "2", "ASR_HOST": "0.0.0.0", "ASR_PORT": "8123", "ASR_VLLM_KEY": "hush"}
    )
    spec = command.standalone_spec(settings, WEIGHTS)
    assert (value(spec, "--host"), value(spec, "--port"), spec.port) == ("0.0.0.0", "8123", 8123)
    assert spec.environment["VLLM_API_KEY"] == "hush"
    assert spec.environment[command.VISIBLE_DEVICES] == "0"
    assert "hush" not in " ".join(spec.command)
    assert "hush" not in repr(spec)
