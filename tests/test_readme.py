"""The READMEs say what is so: their tables are fresh, their commands run, and both languages are in step."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import commands, outline
from invoke.parser import Argument, Parser, ParserContext
from serving import served
from tree import bare_environment, clone_into

import tasks
from env.field import variable
from env.reference import READMES, renewed
from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime import demo
from runtime.demo import Clip
from runtime.engines.vllm import command as flags
from runtime.measure.bench.run import TABLE
from runtime.transcriber import Transcriber

SERVER, MEASURE = PROJECT / "runtime" / "server", PROJECT / "runtime" / "measure"
VLLM = PROJECT / "runtime" / "engines" / "vllm"
SYSTEMD = PROJECT / "docker" / "systemd"
ENGLISH, CHINESE = (path.read_text(encoding="utf-8") for path in READMES)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_settings_and_the_stacks(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == renewed(path), "stale → invoke readme"


@pytest.mark.parametrize("folder", [PROJECT, SERVER, MEASURE, VLLM, SYSTEMD], ids=lambda folder: folder.name)
def test_both_languages_are_in_step(folder: Path) -> None:
    english, chinese = ((folder / path.name).read_text(encoding="utf-8") for path in READMES)
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)


def test_the_page_of_the_server_names_its_routes_and_settings(transcriber: Transcriber) -> None:
    page = (SERVER / "README.md").read_text(encoding="utf-8")
    routes = {route for _, route in re.findall(r"`(GET|POST|PUT) (/[\w/.-]*)`", page)}
    assert set(re.findall(r"`(ASR_\w+)`", page)) <= {variable(name) for name in Settings.model_fields}
    with served(transcriber) as server:
        for route in sorted(routes):
            assert server.get(route).status_code != 404, route


@pytest.mark.parametrize(
    "path",
    [
        *READMES,
        *(folder / path.name for folder in (SERVER, MEASURE, VLLM, SYSTEMD) for path in READMES),
        PROJECT / "runtime" / "demo" / "checkpoint" / "README.md",
        PROJECT / "runtime" / "demo" / "heldout" / "README.md",
    ],
)
def test_every_link_into_the_project_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.parametrize("command", [command for command in commands(ENGLISH) if command.startswith("invoke ")])
def test_each_invoke_command_works_as_written(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("--output out", f"--output {tmp_path}"))
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASR_")}
    result = subprocess.run(
        [Path(sys.executable).parent / words[0], *words[1:]],
        cwd=PROJECT,
        env={**inherited, "ASR_PROFILE": "cpu", "ASR_OUT_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("folder", [PROJECT, SERVER, MEASURE, VLLM], ids=lambda folder: folder.name)
def test_every_task_shown_takes_the_flags_that_it_is_shown_with(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^(?:\$ )?(?:ASR_\S+ )*invoke (.+)$", text, re.MULTILINE)
    assert shown
    for command in shown:
        initial = ParserContext(args=[Argument(name="help", optional=True)])
        Parser(initial=initial, contexts=tasks.namespace.to_contexts()).parse_argv(shlex.split(command))


def test_what_is_set_for_vllm_can_be_set() -> None:
    """In both languages: each variable with its value is one that is accepted, and flags are such as vLLM gets."""
    english, chinese = ((VLLM / path.name).read_text(encoding="utf-8") for path in READMES)
    shown = re.findall(r"\b(ASR_\w+)=('[^']+'|[\w./:,-]+)", english)
    assert shown == re.findall(r"\b(ASR_\w+)=('[^']+'|[\w./:,-]+)", chinese)
    assert "ASR_VLLM_FLAGS" in dict(shown)
    for name, value in shown:
        text = value.strip("'").replace("PORT", "8101")
        settings = load_settings({"ASR_ENGINE": "vllm", "ASR_PROFILE": "cpu", name: text})
        if name == "ASR_VLLM_FLAGS":
            (order,) = flags.launch_specs(settings, demo.CHECKPOINT)
            assert order.command[-2:] == tuple(text.split())


def test_the_figures_of_both_engines_are_those_of_the_table() -> None:
    """The short page tells two of the ratios of the page on the engine."""
    for short, path in zip((ENGLISH, CHINESE), READMES, strict=True):
        table = re.findall(r"\| ([\d.]+) \|$", (VLLM / path.name).read_text(encoding="utf-8"), re.MULTILINE)
        section = short.partition("ASR_STACK=vllm make up")[2].partition("\n### ")[0]
        told = re.findall(r"(?<![\d.])[01]\.\d\d(?!\.?\d)", section)
        assert told
        assert set(told) <= set(table)


def test_the_page_on_measuring_has_every_part_of_the_benchmark() -> None:
    text = (MEASURE / "README.md").read_text(encoding="utf-8")
    table = text.partition("| Part |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(TABLE)


def test_the_first_command_works_in_a_fresh_clone(tmp_path: Path) -> None:
    assert commands(ENGLISH)[0] == "make smoke"
    clone = clone_into(tmp_path / "clone")
    environment = bare_environment(ASR_PROFILE="cpu")
    result = subprocess.run(
        ["make", "smoke"], cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (clone / "out" / "smoke.json").is_file()
    assert re.search(r"Installed cpu-\S+ in \d+ s", result.stdout)


def test_the_smoke_output_shown_is_of_the_bundled_clips(clips: list[Clip]) -> None:
    for text in (ENGLISH, CHINESE):
        shown = re.search(r"<!-- smoke: begin -->\n```text\n(.*?)```", text, re.DOTALL)
        assert shown
        for clip in clips:
            (line,) = [line for line in shown[1].splitlines() if line.startswith(clip.path.name)]
            assert line.rstrip().endswith("pass")
            assert clip.text in line


def test_every_task_and_target_that_is_named_exists() -> None:
    names = {name.replace("_", "-") for name in tasks.namespace.task_names}
    targets = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for text in (ENGLISH, CHINESE, (MEASURE / "README.md").read_text(encoding="utf-8")):
        assert set(re.findall(r"\binvoke ([a-z][a-z-]+)\b", text)) <= names
        for name in re.findall(r"`make ([a-z]+)`", text) + re.findall(r"^\$ make ([a-z]+)", text, re.MULTILINE):
            assert re.search(rf"^{name}:", targets, re.MULTILINE)
