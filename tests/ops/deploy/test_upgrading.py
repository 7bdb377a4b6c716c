"""The changelog knows the version that there is; the page on upgrading and uninstalling says what is so."""

import re

import pytest
from documents import outline

from env.sources import PROJECT
from runtime.ops import bundle
from runtime.ops.deploy import image, uninstall
from runtime.version import version

FOLDER = PROJECT / "docker"
CHANGELOG = (FOLDER / "CHANGELOG.md").read_text(encoding="utf-8")
PAGES = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("UPGRADING.md", "UPGRADING.zh-CN.md")}


def test_the_changelog_has_the_current_version_below_what_is_not_released() -> None:
    entries = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", CHANGELOG, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^## ", CHANGELOG, re.MULTILINE))
    released = [name for name, date in entries if date]
    assert [name for name, date in entries if not date] in ([], ["Unreleased"])
    assert version() == released[0], "an entry for the version of pyproject.toml → docker/CHANGELOG.md"
    kinds = set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_both_languages_are_in_step() -> None:
    english, chinese = PAGES.values()
    assert outline(english) == outline(chinese)
    assert re.findall(r"```sh\n(.*?)```", english, re.DOTALL) == re.findall(r"```sh\n(.*?)```", chinese, re.DOTALL)


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md", "HARDENING.md", "HARDENING.zh-CN.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (FOLDER / name).read_text(encoding="utf-8")):
        assert "://" in link or (FOLDER / link).exists(), link


def test_the_pages_name_all_that_is_removed_and_kept() -> None:
    for text in PAGES.values():
        table = text.partition("| `make uninstall` |")[2].partition("\n\n")[0]
        for path in (*uninstall.MADE, *uninstall.VALUABLE):
            if path not in (uninstall.LOADED, PROJECT / ".installed"):  # of the kit itself
                assert re.search(rf"`{re.escape(path.name)}/?`", table), path
        assert image.CLONE_LABEL in table
        assert f"{uninstall.PROJECT_LABEL}=qwen3-asr-PORT" in table
        assert f"-n {bundle.NAMESPACE} " in text
