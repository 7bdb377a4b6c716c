"""Where settings come from, what they refuse and how they are shown."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from env import sources as module
from env.field import note, setting, variable
from env.reference import MASK, describe, settings_table
from env.settings import Settings
from env.sources import PROJECT, SettingsError, exports, load_settings, profile_names, under_project
from env.translation import translated

ATLAS = ["atlas-300i-duo", "atlas-800-a2", "atlas-800-a3"]


class Keyed(Settings):
    """The settings of a later day, with a secret."""

    hub_token: SecretStr | None = setting(None, "", "Token of the hub.", min_length=8)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile named `lab`, empty, the only one there is beside `cpu`."""
    (tmp_path / "cpu.env").touch()
    monkeypatch.setattr(module, "PROFILES", tmp_path)
    return tmp_path / "lab.env"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's own file, in place of the project's."""
    monkeypatch.setattr(module, "ENV_FILE", tmp_path / ".env")
    native = {note(field, "exports") for field in Settings.model_fields.values()}
    for name in [name for name in os.environ if name.startswith("ASR_") or name in native]:
        monkeypatch.delenv(name)
    return tmp_path / ".env"


def test_what_an_operator_set_in_the_file_holds_unless_the_environment_says_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("ASR_PROFILE=atlas-800-a2\nASR_MAX_BATCH=16\nASR_PORT=8001\nTASK_QUEUE_ENABLE=0\n", "utf-8")
    monkeypatch.setenv("ASR_PORT", "9000")
    monkeypatch.setenv("ASR_MAX_BATCH", "")
    settings = load_settings()
    assert (settings.profile, settings.max_batch, settings.port) == ("atlas-800-a2", 16, 9000)
    assert settings.task_queue_enable == 0
    origins = [settings.origin(name) for name in ("max_batch", "port", "task_queue_enable", "dtype")]
    assert origins == [".env", "environment", ".env, TASK_QUEUE_ENABLE", "env/profiles/atlas-800-a2.env"]


@pytest.mark.parametrize("line", ["ASR_XYZZY=1", "SHELL=/bin/sh"])
def test_the_file_sets_nothing_but_settings(file: Path, line: str) -> None:
    file.write_text(line, "utf-8")
    with pytest.raises(SettingsError, match=r"no setting of the kit \(found in \.env\)"):
        load_settings()


def test_without_variables_the_cpu_profile_counts_over_the_defaults() -> None:
    settings = load_settings({})
    assert (settings.profile, settings.model, settings.device, settings.dtype) == ("cpu", "demo", "auto", "float32")
    assert (settings.segment_seconds, settings.origin("segment_seconds")) == (10, "env/profiles/cpu.env")
    assert (settings.max_batch, settings.origin("max_batch")) == (8, "default")


def test_the_environment_counts_over_the_profile() -> None:
    settings = load_settings({"ASR_PROFILE": "atlas-800-a2", "ASR_DTYPE": "float16", "ASR_MAX_BATCH": "32"})
    assert (settings.dtype, settings.origin("dtype")) == ("float16", "environment")
    assert (settings.max_batch, settings.origin("max_batch")) == (32, "environment")
    assert (settings.model, settings.origin("model")) == ("weights/Qwen3-ASR-1.7B", "env/profiles/atlas-800-a2.env")


def test_the_processs_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    native = {note(field, "exports") for field in Settings.model_fields.values()}
    for name in [name for name in os.environ if name.startswith("ASR_") or name in native]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ASR_MAX_NEW_TOKENS", "99")
    assert load_settings().max_new_tokens == 99
    monkeypatch.delenv("ASR_MAX_NEW_TOKENS")
    assert load_settings().max_new_tokens == 512


def test_an_empty_variable_counts_as_not_set() -> None:
    settings = load_settings({"ASR_PROFILE": "", "ASR_SEGMENT_SECONDS": "", "OMP_NUM_THREADS": ""})
    assert (settings.profile, settings.segment_seconds, settings.omp_num_threads) == ("cpu", 10, None)


@pytest.mark.parametrize("name", profile_names())
def test_each_profile_is_valid(name: str) -> None:
    settings = load_settings({"ASR_PROFILE": name})
    assert settings.profile == name
    assert name in ATLAS or settings.model == "demo"


def test_the_profiles_are_those_of_the_supported_hosts() -> None:
    assert profile_names() == [*ATLAS, "cpu"]


def test_the_310p_gets_no_bfloat16() -> None:
    assert [load_settings({"ASR_PROFILE": name}).dtype for name in ATLAS] == ["float16", "bfloat16", "bfloat16"]


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"ASR_PROFILE: there is no profile '../cpu' → .*atlas-800-a2, .*cpu"):
        load_settings({"ASR_PROFILE": "../cpu"})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("ASR_MAX_BACH", "ASR_MAX_BATCH"), ("ASR_device", "ASR_DEVICE"), ("ASR_URL_TIMEOUT", "ASR_URL_TIMEOUT_SECONDS")],
)
def test_an_unknown_variable_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f"did you mean {nearest}\\?") as caught:
        load_settings({name: "1"})
    assert caught.value.subject == name


def test_an_unknown_variable_near_to_none_says_how_to_list_them() -> None:
    with pytest.raises(SettingsError, match="invoke config"):
        load_settings({"ASR_XYZZY": "1"})


@pytest.mark.parametrize("line", ["ASR_MAX_BACH=4", "MAX_BATCH=4", "export TASK_QUEUE_ENABLE=2"])
def test_a_profile_holds_nothing_but_settings(profile: Path, line: str) -> None:
    profile.write_text(line + "\n")
    with pytest.raises(SettingsError, match=r"env/profiles/lab\.env"):
        load_settings({"ASR_PROFILE": "lab"})


def test_a_profile_cannot_pick_a_profile(profile: Path) -> None:
    profile.write_text("ASR_PROFILE=cpu\n")
    with pytest.raises(SettingsError, match="ASR_PROFILE: is for the environment"):
        load_settings({"ASR_PROFILE": "lab"})


def test_a_bad_value_in_a_profile_names_the_file(profile: Path) -> None:
    profile.write_text("ASR_MAX_BATCH=lots\n")
    with pytest.raises(SettingsError, match=r"ASR_MAX_BATCH: 'lots' \(from env/profiles/lab\.env\) is not allowed"):
        load_settings({"ASR_PROFILE": "lab"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ASR_DEVICE", "gpu", "auto, cpu, npu, npu:N"),
        ("ASR_DEVICE", "npu:x", "auto, cpu, npu, npu:N"),
        ("ASR_DTYPE", "bf16", "bfloat16, float16, float32"),
        ("ASR_MAX_BATCH", "0", "whole number 1 to 256"),
        ("ASR_MAX_BATCH", "2.5", "whole number 1 to 256"),
        ("ASR_MAX_BATCH", "257", "whole number 1 to 256"),
        ("ASR_SEGMENT_SECONDS", "1200.1", "number 1 to 1200"),
        ("ASR_SEGMENT_SECONDS", "nan", "number 1 to 1200"),
        ("ASR_ALLOW_PRIVATE_URLS", "perhaps", "true, false"),
        ("ASR_NPU_ALLOC_CONF", "expandable_segments", "option:value"),
        ("ASR_CPU_AFFINITY_CONF", "3", "0, 1, 2"),
        ("OMP_NUM_THREADS", "many", "whole number 1 to 1024"),
        ("TASK_QUEUE_ENABLE", "3", "whole number 0 to 2"),
    ],
)
def test_a_bad_value_says_variable_value_and_what_was_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value})
    assert caught.value.subject == name
    assert repr(value) in caught.value.reason
    assert f"expected {expected}" in caught.value.reason


def test_all_bad_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"ASR_MAX_BATCH": "0", "ASR_DTYPE": "int8"})
    assert caught.value.subject == "ASR_DTYPE, ASR_MAX_BATCH"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}).max_batch = 4


def test_exports_are_the_variables_of_torch_npu_and_cann() -> None:
    assert exports(load_settings({"ASR_PROFILE": "atlas-800-a2"})) == {
        "TASK_QUEUE_ENABLE": "2",
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        "CPU_AFFINITY_CONF": "2",
        "OMP_NUM_THREADS": "8",
        "ACL_OP_COMPILER_CACHE_DIR": str(PROJECT / "out/op-cache"),
    }


def test_what_is_not_set_is_not_exported() -> None:
    assert exports(load_settings({})) == {"TASK_QUEUE_ENABLE": "1"}


def test_a_native_variable_counts_over_the_profile_and_an_asr_variable_over_both() -> None:
    native = {"ASR_PROFILE": "atlas-800-a2", "TASK_QUEUE_ENABLE": "0"}
    settings = load_settings(native)
    assert (settings.task_queue_enable, settings.origin("task_queue_enable")) == (0, "environment, TASK_QUEUE_ENABLE")
    assert exports(settings)["TASK_QUEUE_ENABLE"] == "0"
    settings = load_settings({**native, "ASR_TASK_QUEUE_ENABLE": "1"})
    assert (settings.task_queue_enable, settings.origin("task_queue_enable")) == (1, "environment")


def test_relative_paths_start_at_the_project() -> None:
    assert under_project("weights/x") == PROJECT / "weights/x"
    assert under_project("/data/x") == Path("/data/x")
    assert under_project("~/x") == Path.home() / "x"


def test_describe_tells_every_setting_and_its_origin() -> None:
    settings = load_settings({"ASR_PROFILE": "atlas-800-a2", "ASR_ALLOW_PRIVATE_URLS": "yes"})
    rows = {row.variable: row for row in describe(settings)}
    assert rows.keys() == {variable(name) for name in Settings.model_fields}
    row = rows["ASR_ALLOW_PRIVATE_URLS"]
    assert (row.value, row.default, row.origin) == ("true", "false", "environment")
    row = rows["ASR_SEGMENT_SECONDS"]
    assert (row.value, row.default, row.unit, row.origin) == ("30", "30", "s", "default")
    assert rows["ASR_OP_CACHE_DIR"].value == "out/op-cache"
    assert rows["ASR_OP_CACHE_DIR"].default == ""


def test_a_secret_is_shown_nowhere() -> None:
    settings = load_settings({"ASR_HUB_TOKEN": "hf_do_not_tell"}, kind=Keyed)
    assert isinstance(settings, Keyed)
    assert settings.hub_token is not None
    assert settings.hub_token.get_secret_value() == "hf_do_not_tell"
    row = next(row for row in describe(settings) if row.variable == "ASR_HUB_TOKEN")
    assert row.value == MASK
    assert "hf_do_not_tell" not in f"{settings!r} {describe(settings)}"
    with pytest.raises(SettingsError, match="ASR_HUB_TOKEN: the value") as caught:
        load_settings({"ASR_HUB_TOKEN": "short"}, kind=Keyed)
    assert "short" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_every_setting_is_described_in_both_languages() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert any("一" <= letter <= "鿿" for letter in translated(field.description).zh), name


def test_the_table_holds_every_setting_with_its_values_in_profiles() -> None:
    lines = settings_table().splitlines()
    assert [line.split("|")[1].strip("` ") for line in lines[2:]] == [variable(name) for name in Settings.model_fields]
    dtype = next(line for line in lines if "`ASR_DTYPE`" in line)
    assert "`float16` (atlas-300i-duo); `bfloat16` (atlas-800-a2, atlas-800-a3)" in dtype
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_the_chinese_table_has_no_english_words_of_its_own() -> None:
    table = settings_table("zh")
    assert table.startswith("| 变量 |")
    assert "整数 1 至 256" in table
    assert not any(word in table for word in ("whole number", "number", "Sets", "path"))
    units = {line.split("|")[5].strip() for line in table.splitlines()[2:]}
    assert {unit for unit in units if unit.isascii()} <= {"", "s", "ms", "MiB", "token"}


def test_importing_the_settings_reads_nothing() -> None:
    command = [sys.executable, "-c", "import env.sources, env.reference"]
    done = subprocess.run(
        command, cwd=PROJECT, env={"ASR_PROFILE": "none", "ASR_X": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
