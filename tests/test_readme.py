"""The READMEs say what is so: their tables are fresh, their commands run, and both languages are in step."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import CHINESE, anchors, commands, documents, links, outline, scripts, twin
from invoke.parser import Argument, Parser, ParserContext
from serving import served
from tree import bare_environment, clone_into

import tasks
from env.field import variable
from env.reference import READMES, renewed
from env.settings import Settings
from env.sources import PROJECT, load_settings
from env.stacks import tomllib
from runtime import demo
from runtime.demo import Clip
from runtime.measure.bench.run import TABLE
from runtime.transcriber import Transcriber

DOCUMENTS = documents()
ENGLISH = [path for path in DOCUMENTS if CHINESE not in path.name]
# In one language: for those who change the kit or look into it, not for those who run it.
ENGLISH_ALONE = {
    *(".github/CONTRIBUTING.md", ".github/SECURITY.md", "docker/CHANGELOG.md", "docker/certificates/README.md"),
    *("runtime/demo/checkpoint/README.md", "runtime/demo/heldout/README.md", "runtime/demo_recipe/card.md"),
}
MAIN, RUNTIME = PROJECT / "README.md", PROJECT / "runtime" / "README.md"
SERVER, MEASURE = PROJECT / "runtime" / "server" / "README.md", PROJECT / "runtime" / "measure" / "README.md"
VLLM = PROJECT / "runtime" / "engines" / "vllm" / "README.md"
NAMES = {variable(name) for name in Settings.model_fields}


def read(path: Path) -> str:
    """A document's text."""
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    """A document as a test's id has it."""
    return str(path.relative_to(PROJECT))


def tried(command: str) -> str:
    """An invoke command without the folder that it is started from."""
    return command.removeprefix(".venv/bin/")


@pytest.mark.parametrize("path", READMES, ids=name)
def test_the_tables_are_those_of_the_settings_and_the_stacks(path: Path) -> None:
    assert read(path) == renewed(path), "stale → invoke dev.readme"


def test_a_table_without_its_markers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "README.md"
    path.write_text(read(PROJECT / "env" / "README.md").replace("<!-- stacks: end -->", ""), encoding="utf-8")
    monkeypatch.setitem(READMES, path, "en")
    with pytest.raises(ValueError, match="stacks"):
        renewed(path)


@pytest.mark.parametrize("path", ENGLISH, ids=name)
def test_both_languages_are_in_step(path: Path) -> None:
    if name(path) in ENGLISH_ALONE:
        assert not twin(path).exists()
        return
    english, chinese = read(path), read(twin(path))
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    assert scripts(english) == scripts(chinese)


def test_the_page_of_the_server_names_its_routes_and_settings(transcriber: Transcriber) -> None:
    page = read(SERVER)
    routes = {route for _, route in re.findall(r"`(GET|POST|PUT) (/[\w/.-]*)`", page)}
    assert set(re.findall(r"`(ASR_\w+)`", page)) <= NAMES
    with served(transcriber) as server:
        for route in sorted(routes):
            assert server.get(route).status_code != 404, route


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_into_the_project_leads_somewhere(path: Path) -> None:
    folder = demo.CHECKPOINT if path.name == "card.md" else path.parent  # where training writes the card
    for target, anchor in links(read(path)):
        linked = folder / target if target else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(read(linked)), f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_what_is_named_exists(path: Path) -> None:
    """Settings, tasks, targets of make, and files of the project."""
    text = read(path)
    assert set(re.findall(r"`(ASR_[A-Z_]+)[`=]", text)) <= NAMES
    assert set(re.findall(r"`(?:\.venv/bin/)?invoke ([a-z][a-z.-]+)\b", text)) <= set(tasks.namespace.task_names)
    targets = read(PROJECT / "Makefile")
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    for file in re.findall(r"`((?:env|runtime|docker(?!/kubernetes/own)|tests)/[\w./-]+)`", text):
        assert (PROJECT / file).exists(), file


@pytest.mark.parametrize(
    "command",
    [command for path in (MAIN, RUNTIME) for command in commands(read(path)) if tried(command).startswith("invoke ")],
)
def test_each_invoke_command_works_as_written(command: str, tmp_path: Path) -> None:
    words = shlex.split(re.sub(r"(--output|-o) out\b", rf"\1 {tmp_path}", tried(command)))
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


def test_every_command_is_run_by_a_test_or_has_a_reason_why_not() -> None:
    """Those that the tests here run as they are written, and those of documented_commands.toml."""
    shown = {path: [*commands(read(path)), *scripts(read(path))] for path in ENGLISH}
    run = {"make smoke", *(typed for path in (MAIN, RUNTIME) for typed in commands(read(path)) if "invoke " in typed)}
    groups: list[dict[str, Any]] = tomllib.loads(read(PROJECT / "tests" / "documented_commands.toml"))["commands"]
    for group in groups:
        assert group.get("reason") or group["tests"], group
        assert all((PROJECT / test).is_file() for test in group.get("tests", ())), group
    whole = {PROJECT / group["document"] for group in groups if "document" in group}
    there = {command for path, typed in shown.items() if path not in whole for command in typed}
    listed = [command.lstrip("\n") for group in groups for command in group.get("typed", ())]
    assert whole <= set(shown)
    assert len(listed) == len(set(listed))
    assert there - run - set(listed) == set(), "neither run nor listed"
    assert set(listed) - there == set(), "in no document any more"


@pytest.mark.parametrize("path", ENGLISH, ids=name)
def test_the_tests_that_are_named_exist(path: Path) -> None:
    for files, keywords in re.findall(r"pytest ((?:tests/\S+ ?)+)(?:-k (.+))?", read(path)):
        found = [PROJECT / file for file in files.split()]
        assert all(file.exists() for file in found), files
        for keyword in re.findall(r"\w+", keywords.replace(" or ", " ")):
            assert any(re.search(rf"def test_\w*{keyword}", read(file)) for file in found), keyword


@pytest.mark.parametrize("path", ENGLISH, ids=name)
def test_every_task_shown_takes_the_flags_that_it_is_shown_with(path: Path) -> None:
    shown = re.findall(r"^ *(?:\$ )?(?:sudo )?(?:ASR_\S+ )*(?:\.venv/bin/)?invoke (.+)$", read(path), re.MULTILINE)
    assert shown or path not in (MAIN, RUNTIME, SERVER, MEASURE, VLLM)
    for command in shown:
        initial = ParserContext(args=[Argument(name="help", optional=True), Argument(name="list", optional=True)])
        words = shlex.split(command, comments=True)
        Parser(initial=initial, contexts=tasks.namespace.to_contexts()).parse_argv(words)


def test_what_is_set_for_vllm_can_be_set() -> None:
    """In both languages: each variable with its value is one that is accepted."""
    english, chinese = read(VLLM), read(twin(VLLM))
    shown = re.findall(r"\b(ASR_\w+)=('[^']+'|[\w./:,-]+)", english)
    assert shown == re.findall(r"\b(ASR_\w+)=('[^']+'|[\w./:,-]+)", chinese)
    assert shown
    for name, value in shown:
        text = value.strip("'").replace("PORT", "8101")
        load_settings({"ASR_ENGINE": "vllm", "ASR_PROFILE": "cpu", name: text})


def test_the_figures_of_both_engines_are_those_of_the_table() -> None:
    """The main page has four of the ratios of the page on the engine."""
    for short, path in ((MAIN, VLLM), (twin(MAIN), twin(VLLM))):
        table = re.findall(r"\| ([\d.]+) \|$", read(path), re.MULTILINE)
        section = read(short).partition("ASR_STACK=vllm make up")[2].partition("\n## ")[0]
        told = re.findall(r"(?<![\d.])[01]\.\d\d(?!\.?\d)", section)
        assert told
        assert set(told) <= set(table)


def test_the_page_on_measuring_has_every_part_of_the_benchmark() -> None:
    table = read(MEASURE).partition("| Part |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(TABLE)


def test_the_first_command_works_in_a_fresh_clone(tmp_path: Path) -> None:
    assert commands(read(MAIN))[0] == "make smoke"
    clone = clone_into(tmp_path / "clone")
    environment = bare_environment(ASR_PROFILE="cpu")
    result = subprocess.run(
        ["make", "smoke"], cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (clone / "out" / "smoke.json").is_file()
    assert re.search(r"Installed cpu in \d+ s", result.stdout)


def test_the_smoke_output_shown_is_of_the_bundled_clips(clips: list[Clip]) -> None:
    for path in (MEASURE, twin(MEASURE)):
        shown = re.search(r"<!-- smoke: begin -->\n```text\n(.*?)```", read(path), re.DOTALL)
        assert shown
        for clip in clips:
            (line,) = [line for line in shown[1].splitlines() if line.startswith(clip.path.name)]
            assert line.rstrip().endswith("pass")
            assert clip.text in line
