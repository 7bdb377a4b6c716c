"""What can be amiss with vLLM on an Atlas 800 A2, and what the doctor must find."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ailments import BUSY, DRIVER, HBM, IDLE, Damage, fails, has, npu_smi, says
from fake_hosts import vllm_told

CANN = "/usr/local/Ascend/cann-8.5.1/aarch64-linux/ascend_toolkit_install.info"
OWN = {"ASR_VLLM_PYTHON": "/opt/python", "place": "host"}
PLUGIN = "vLLM's plugin third = third.plugin:register"


def installed(**changes: str) -> tuple[Damage, ...]:
    """Other versions, or with an empty text none, where vLLM runs; `_` stands for a name's hyphen."""
    versions = {name.replace("_", "-"): text for name, text in changes.items()}
    return (says("vllm-python", vllm_told(versions=versions)),)


def on_cann(version: str, **changes: str) -> tuple[Damage, ...]:
    """Another CANN, and what else is installed."""
    return (has(CANN, f"version={version}\n"), *installed(**changes))


def inside(**changes: object) -> tuple[Damage, ...]:
    """Anything else where vLLM runs."""
    return (says("vllm-python", vllm_told(**changes)),)


@dataclass(frozen=True)
class VllmAilment:
    """What is wrong in the kit's container with vLLM, or with its settings; which check tells it, and what words."""

    check: str
    status: str
    damage: tuple[Damage, ...]
    evidence: str
    fix: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


AILMENTS = {
    "no vLLM": VllmAilment(
        *("vLLM", "fail", inside(versions={"vllm": "", "vllm-ascend": "", "torch-npu": ""})),
        *("has no vLLM", "export ASR_STACK=vllm"),
    ),
    "no interpreter": VllmAilment(
        *("vLLM", "fail", (fails("vllm-python", "not found"),)),
        *("/kit/.vllm/bin/python: not found", "export ASR_VLLM_PYTHON="),
        {"ASR_VLLM_PYTHON": "/kit/.vllm/bin/python"},
    ),
    "vLLM without vllm-ascend": VllmAilment(
        *("vLLM", "fail", installed(vllm_ascend="")), *("without vllm-ascend, so it cannot use an NPU", "ASR_STACK")
    ),
    "another vLLM": VllmAilment(
        *("vLLM", "fail", installed(vllm="0.19.0+empty")),
        *("with vllm-ascend 0.18.0: vllm 0.19.0, not 0.18.0", "make build"),
    ),
    "another vLLM in a Python of one's own": VllmAilment(
        *("vLLM", "fail", installed(vllm="0.19.0", transformers="5.5.4")),
        "vllm 0.19.0, not 0.18.0; transformers 5.5.4, not >=4.57.4,<5",
        "VLLM_TARGET_DEVICE=empty /opt/python -m pip install 'vllm==0.18.0' 'transformers>=4.57.4,<5'",
        {"ASR_VLLM_PYTHON": "/opt/python"},
    ),
    "another torch": VllmAilment(
        *("vLLM", "fail", installed(torch="2.10.0", torch_npu="2.10.0")),
        "torch 2.10.0, not 2.9.0; torch-npu 2.10.0, not 2.9.0.post1",
    ),
    "the torch-npu of the package index": VllmAilment(
        *("vLLM", "warn", installed(torch_npu="2.9.0")),
        *("torch-npu 2.9.0, not 2.9.0.post1", "aarch64.whl"),
        {"ASR_VLLM_PYTHON": "/opt/python"},
    ),
    "no torch-npu": VllmAilment("vLLM", "fail", installed(torch_npu=""), "torch-npu missing, not 2.9.0.post1"),
    "versions that are none": VllmAilment(
        "vLLM", "fail", installed(vllm="dev", transformers="main"), "vllm dev, not 0.18.0; transformers main, not >="
    ),
    "another CANN": VllmAilment("vLLM", "fail", on_cann("8.3.RC2"), "CANN 8.3.RC2, not 8.5.1 or 9.0.0", "make build"),
    "CANN 9 with the torch-npu of 8.5": VllmAilment(
        "vLLM", "warn", on_cann("9.0.0"), "torch-npu 2.9.0.post1, not 2.9.0.post2"
    ),
    "another Python": VllmAilment("vLLM", "fail", inside(python="3.12"), "Python 3.12, not 3.10 or 3.11", "make build"),
    "a vllm-ascend that nobody listed": VllmAilment(
        *("vLLM", "warn", installed(vllm_ascend="0.17.0rc1", vllm="0.17.0")),
        "vllm-ascend 0.17.0rc1: the kit does not know what goes with it",
    ),
    "a later vllm-ascend, as it should be": VllmAilment(
        "vLLM",
        "warn",
        on_cann(
            "9.1.0",
            vllm="0.23.0",
            vllm_ascend="0.23.0",
            torch="2.10.0",
            torch_npu="2.10.0.post4",
            transformers="5.5.4",
        ),
        "what goes with it, CANN 9.1.0; the kit is tried with vLLM 0.18.0",
    ),
    "qwen-asr beside vLLM": VllmAilment(
        *("qwen-asr", "warn", inside(qwen_asr=True)), *("harmless as long as nothing imports it", "qwen-asr-serve")
    ),
    "a plugin that imports qwen-asr": VllmAilment(
        *("qwen-asr", "fail", inside(qwen_asr=True, importers=[PLUGIN])),
        *(f"qwen_asr is imported by {PLUGIN}", "export ASR_BASE_IMAGE=… to an image without qwen-asr, then make build"),
    ),
    "a plugin that imports qwen-asr in a Python of one's own": VllmAilment(
        *("qwen-asr", "fail", inside(qwen_asr=True, importers=[PLUGIN])),
        *(f"qwen_asr is imported by {PLUGIN}", "/opt/python -m pip uninstall qwen-asr; then take out what imports it"),
        OWN,
    ),
    "plugins without vllm-ascend's": VllmAilment(
        *("qwen-asr", "fail", inside(chosen="ascend_model_loader")),
        *("VLLM_PLUGINS='ascend_model_loader' leaves out vllm-ascend's ascend", "unset VLLM_PLUGINS"),
    ),
    "no plugins at all": VllmAilment("qwen-asr", "fail", inside(chosen=""), "VLLM_PLUGINS=''", "unset VLLM_PLUGINS"),
    "nothing to read audio with": VllmAilment(
        *("Audio for vLLM", "fail", inside(missing=["librosa", "soundfile"])),
        *("librosa and soundfile missing", "export ASR_BASE_IMAGE=… to an image with librosa and soundfile, then make"),
    ),
    "nothing to read audio with in a Python of one's own": VllmAilment(
        *("Audio for vLLM", "fail", inside(missing=["librosa"])),
        *("librosa missing", "/opt/python -m pip install librosa"),
        OWN,
    ),
    "graphs on an old driver": VllmAilment(
        *("Graphs", "warn", (has(DRIVER, "Version=25.2.0\n"),)),
        *("ASR_VLLM_EAGER=false with driver 25.2.0", "export ASR_VLLM_EAGER=true"),
        {"ASR_VLLM_EAGER": "false"},
    ),
    "graphs on an unknown driver": VllmAilment(
        *("Graphs", "warn", (has(DRIVER, "\n"),), "driver unknown", "export ASR_VLLM_EAGER=true"),
        {"ASR_VLLM_EAGER": "false"},
    ),
    "graphs with the task queue that launches want": VllmAilment(
        *("Graphs", "warn", ()),
        *("ASR_VLLM_EAGER=false with ASR_TASK_QUEUE_ENABLE=2", "export ASR_TASK_QUEUE_ENABLE=1"),
        {"ASR_VLLM_EAGER": "false"},
    ),
    "long segments": VllmAilment(
        *("Model length", "fail", ()),
        "a segment of 300 s with 512 tokens takes up to 4540 tokens, ASR_VLLM_MAX_MODEL_LEN=4096",
        "export ASR_VLLM_MAX_MODEL_LEN=4540, or lower ASR_SEGMENT_SECONDS or ASR_MAX_NEW_TOKENS",
        {"ASR_SEGMENT_SECONDS": "300"},
    ),
    "memory held": VllmAilment(
        *("Memory share", "fail", (npu_smi((HBM[0], HBM[1]), (IDLE, BUSY)),)),
        *("NPU 0: 957 of 32768 MB free, 26934 needed", "stop them"),
        {"place": "host"},
    ),
    "some memory held": VllmAilment(
        *("Memory share", "fail", (npu_smi((HBM[0], "12811 / 32768"), (IDLE, BUSY.replace("28970", "10000"))),)),
        *("ASR_VLLM_MEMORY_SHARE=0.9: NPU 0: 19957 of 32768 MB free", "or export ASR_VLLM_MEMORY_SHARE=0.66"),
        {"place": "host"},
    ),
    "a share that does not hold the model": VllmAilment(
        *("Memory share", "fail", ()),
        *("ASR_VLLM_MEMORY_SHARE=0.1 of 29942 MB, and the model takes 6244", "export ASR_VLLM_MEMORY_SHARE=0.21"),
        {"ASR_VLLM_MEMORY_SHARE": "0.1"},
    ),
    "transformers with vLLM's stack": VllmAilment(
        *("Engine", "fail", (), "the stack vllm has no qwen-asr", "unset ASR_ENGINE, or export ASR_STACK=npu"),
        {"ASR_ENGINE": "transformers"},
    ),
    "vllm with another stack": VllmAilment(
        *("Engine", "fail", (fails("vllm-python", "not found"),)),
        *("ASR_ENGINE=vllm, and the stack npu has no vLLM", "export ASR_STACK=vllm"),
        {"ASR_ENGINE": "vllm", "ASR_STACK": "npu"},
    ),
    "servers elsewhere that the engine would not ask": VllmAilment(
        *("Engine", "fail", (), "ASR_VLLM_URL is set, but the engine is transformers", "export ASR_ENGINE=vllm"),
        {"ASR_STACK": "npu", "ASR_VLLM_URL": "http://10.0.0.1:8101"},
    ),
    "settings of servers that are not started": VllmAilment(
        *("Engine", "warn", (), "ASR_VLLM_REPLICAS ASR_VLLM_FLAGS: for servers that the kit starts"),
        "unset ASR_VLLM_REPLICAS ASR_VLLM_FLAGS",
        {"ASR_VLLM_URL": "http://10.0.0.1:8101", "ASR_VLLM_REPLICAS": "2", "ASR_VLLM_FLAGS": "--seed 1"},
    ),
    "more servers than NPUs": VllmAilment(
        *("Engine", "fail", (), "ASR_VLLM_REPLICAS=2, each on an NPU of its own, of which there are 1"),
        "export ASR_VLLM_REPLICAS=1",
        {"ASR_VLLM_REPLICAS": "2"},
    ),
}
