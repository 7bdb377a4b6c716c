"""The runbook has a section for each alert, in both languages, and the page on monitoring lists them as they are."""

import re
import shlex
from typing import Any

import pytest
from documents import commands, outline
from invoke.parser import Argument, Parser, ParserContext
from kustomize import load

import tasks
from env.field import variable
from env.settings import Settings
from env.sources import PROJECT
from runtime.ops.deploy import monitoring

ALERTS: list[dict[str, Any]] = load(monitoring.FILES / "prometheus" / "rules.yml")["groups"][0]["rules"]
NAMES = [alert["alert"] for alert in ALERTS]
RUNBOOKS = {"RUNBOOK.md": ("**It means**", "**Users see**", "**To mend it:**")}
RUNBOOKS["RUNBOOK.zh-CN.md"] = ("**含义**", "**用户看到**", "**处理**")
PAGES = ("README", "RUNBOOK")


def read(name: str) -> str:
    """A page of docker/monitoring."""
    return (monitoring.FILES / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """The runbook's sections by their headings."""
    return dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_each_alert_leads_to_its_section(alert: dict[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    text = (PROJECT / path).read_text(encoding="utf-8")
    assert [name for name in sections(text) if name.lower() == anchor] == [alert["alert"]]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert re.search("[一-鿿]", alert["annotations"]["summary"])


@pytest.mark.parametrize("name", RUNBOOKS)
def test_each_section_has_all_that_somebody_on_call_needs(name: str) -> None:
    found = sections(read(name))
    assert list(found) == NAMES
    for heading, section in found.items():
        places = [section.find(part) for part in RUNBOOKS[name]]
        assert -1 not in places, heading
        assert places == sorted(places), heading
        assert places[1] < section.find("```console") < places[2], heading
        assert len(commands(section)) == 3, heading


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_are_in_step(page: str) -> None:
    english, chinese = read(f"{page}.md"), read(f"{page}.zh-CN.md")
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_page_lists_every_alert_as_it_is(name: str) -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)#(\w+)\) \| (\w+) \|", read(name), re.MULTILINE)
    runbook = name.replace("README", "RUNBOOK")
    assert rows == [(alert["alert"], runbook, alert["alert"].lower(), alert["labels"]["severity"]) for alert in ALERTS]


@pytest.mark.parametrize("name", [f"{page}{language}.md" for page in PAGES for language in ("", ".zh-CN")])
def test_what_is_named_exists(name: str) -> None:
    """Links, settings, tasks with their flags, make's targets. The commands look at a server that is ill, and are not
    run here."""
    text = read(name)
    headings = {heading.lower() for heading in sections(read(name.replace("README", "RUNBOOK")))}
    for path, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
        assert not path or (monitoring.FILES / path).is_file(), path
        assert not anchor or anchor in headings, anchor
    assert set(re.findall(r"\b(ASR_\w+)", text)) <= {variable(setting) for setting in Settings.model_fields}
    targets = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^\$ (?:ASR_\S+ )?)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    for command in re.findall(r"`invoke ([^`]+)`", text) + re.findall(r"^\$ invoke (.+)$", text, re.MULTILINE):
        initial = ParserContext(args=[Argument(name="help", optional=True)])
        Parser(initial=initial, contexts=tasks.namespace.to_contexts()).parse_argv(shlex.split(command))
