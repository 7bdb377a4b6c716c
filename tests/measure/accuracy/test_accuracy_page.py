"""The page of the worst utterances: one file, in a real Chromium, for eyes, ears, keyboards and screen readers."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from audio_files import speechlike, wav
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from browser import Page, opened
from selenium.webdriver.common.keys import Keys as Key

from env.settings import Settings
from env.translation import Language
from runtime.audio import Limits
from runtime.demo import Clip
from runtime.measure.accuracy import run
from runtime.measure.accuracy.dataset import DataSet, Item
from runtime.measure.accuracy.journal import UtteranceOutcome
from runtime.measure.accuracy.page import AROUND, LONGEST, page, pairs
from runtime.measure.accuracy.run import Accuracy, Backend, RunObserver, RunOptions
from runtime.measure.error_rate import count
from runtime.measure.records import here
from runtime.model.device import Device

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'more'"
GONE = "gone.wav"


@pytest.fixture(scope="module")
def items(speech: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[Item, ...]:
    """Utterances with what will be heard wrong, in several scripts."""
    folder = tmp_path_factory.mktemp("sound")
    long, gone = folder / "long.wav", folder / GONE
    long.write_bytes(wav(speechlike(LONGEST + 5, 16_000)))
    gone.write_bytes(speech[0].path.read_bytes())
    english, chinese = speech[0], speech[-1]
    return (
        Item("english", english.path, "alpha beta gamma delta", "English", "ann"),
        Item("chinese", chinese.path, "今天天气很好", "Chinese"),
        Item("arabic", english.path, "مرحبا بكم في البيت", "Arabic"),
        Item("long", long, " ".join(f"w{number}" for number in range(60)), "English"),
        Item(HOSTILE, english.path.read_bytes(), HOSTILE, "English", HOSTILE),
        Item(GONE, gone, "one two", "English"),
    )


@pytest.fixture(scope="module")
def record(items: tuple[Item, ...], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Accuracy:
    """What was heard: most of it, with errors of every kind."""
    heard = {
        "english": ("alpha betta gamma delta epsilon", "English", 4.0),
        "chinese": ("今天汽很好吗", "Chinese", 4.0),
        "arabic": ("مرحبا في البيوت", "Arabic", 4.0),
        "long": (" ".join(f"w{number}" for number in range(59)), "Chinese", LONGEST + 5),
        HOSTILE: ("", None, 4.0),
        GONE: ("one three", "English", 4.0),
    }
    outcomes = [UtteranceOutcome(name, *told) for name, told in heard.items()]
    told = Backend(here(settings, Device("cpu")), {}, lambda _items, _forced: (outcome for outcome in outcomes))
    data = DataSet("Scripts", "manifest", "digest", items)
    found = run.run(RunOptions(data, items), nullcontext(told), tmp_path_factory.mktemp("out"), RunObserver())
    Path(str(next(item for item in items if item.name == GONE).source)).unlink()
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A browser."""
    with opened() as running:
        yield running


def shown(browser: Page, record: Accuracy, items: tuple[Item, ...], language: Language, folder: Path) -> Page:
    """The page, from a file of its own."""
    file = folder / f"worst-{language}.html"
    file.write_text(page(record, {item.name: item for item in items}, Limits(), language), encoding="utf-8")
    browser.driver.get(file.as_uri())
    return browser


@pytest.fixture
def worst(browser: Page, record: Accuracy, items: tuple[Item, ...], tmp_path: Path) -> Iterator[Page]:
    """The page in English, about which the browser has nothing to complain."""
    yield shown(browser, record, items, "en", tmp_path)
    assert browser.complaints() == []


def test_every_player_plays(worst: Page) -> None:
    players = worst.run("return document.querySelectorAll('audio').length")
    assert players == 5  # all but the one whose file is gone
    worst.until("[...document.querySelectorAll('audio')].every(a => a.readyState >= 1 && !a.error)")
    seconds = worst.run("return [...document.querySelectorAll('audio')].map(a => a.duration)")
    assert max(seconds) == pytest.approx(LONGEST, abs=0.2)  # what is longer is cut, and told
    assert worst.run("return document.body.innerText").count(f"The first {LONGEST:g} s") == 1
    assert f"{GONE}: cannot be read" in worst.run("return document.body.innerText")
    worst.run("document.querySelector('audio').focus()")
    worst.press(Key.SPACE)
    worst.until("document.querySelector('audio').currentTime > 0")


def test_nothing_but_the_file_is_needed(worst: Page) -> None:
    assert worst.run("return performance.getEntriesByType('resource').length") == 0
    assert worst.run("return document.scripts.length") == 0
    policy = worst.run("return document.querySelector('meta[http-equiv]').content")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    background = worst.run("return getComputedStyle(document.querySelector('.pair')).display")
    assert background == "inline-flex"  # the policy lets its own style through


def test_what_a_data_set_says_is_text(worst: Page) -> None:
    names = worst.run("return [...document.querySelectorAll('article h2')].map(e => e.textContent)")
    assert HOSTILE in names
    (said,) = [
        text
        for text in worst.run(
            "return [...document.querySelectorAll('.texts dd:first-of-type')].map(e => e.textContent)"
        )
        if "script" in text
    ]
    assert said == HOSTILE


def test_errors_are_told_by_more_than_colour(worst: Page) -> None:
    (english,) = [
        entry
        for entry in worst.driver.find_elements("css selector", "article")
        if entry.find_element("css selector", "h2").text == "english"
    ]
    deleted = english.find_element("css selector", ".substitute del")
    inserted = english.find_element("css selector", ".insert ins")
    assert "beta" in deleted.text
    assert "epsilon" in inserted.text
    assert "line-through" in deleted.value_of_css_property("text-decoration")
    assert "underline" in inserted.value_of_css_property("text-decoration")
    assert "said" in str(deleted.get_attribute("textContent"))  # for who hears the page


def test_scripts_run_their_own_way(worst: Page) -> None:
    found = worst.run(
        """return Object.fromEntries([...document.querySelectorAll('article')].map(article => {
          const diff = article.querySelector('.diff');
          return [article.querySelector('h2').textContent, [getComputedStyle(diff).direction, diff.lang]];
        }))"""
    )
    assert found["arabic"] == ["rtl", "ar"]
    assert found["chinese"] == ["ltr", "zh"]
    first, last = worst.run(
        """const pairs = document.querySelectorAll('.diff[lang=ar] .pair');
        return [pairs[0].getBoundingClientRect().x, pairs[pairs.length - 1].getBoundingClientRect().x]"""
    )
    assert first > last


def test_the_keyboard_reaches_every_player(worst: Page) -> None:
    worst.run("document.body.tabIndex = -1; document.body.focus()")
    reached = set()
    for _ in range(60):
        worst.press(Key.TAB)
        if label := worst.run("return document.activeElement.ariaLabel"):
            reached.add(label)
    assert len(reached) == 5


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_people_with_disabilities(
    browser: Page, record: Accuracy, items: tuple[Item, ...], language: Language, scheme: str, tmp_path: Path
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    shown(browser, record, items, language, tmp_path)
    assert [(each["id"], each["nodes"]) for each in Axe().run(browser.driver)["violations"]] == []
    text = browser.run("return document.body.innerText")
    assert ("替换" in text) == (language == "zh")
    assert browser.run("return document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[language]


def test_on_paper_there_are_no_players(worst: Page) -> None:
    worst.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert worst.run("return getComputedStyle(document.querySelector('audio')).display") == "none"
        assert worst.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        worst.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_long_stretches_without_error_are_left_out() -> None:
    said = [f"w{number}" for number in range(40)]
    heard = [*said[:39], "other"]
    found = list(pairs(count(" ".join(said), " ".join(heard), "English", plain=True).steps, "words"))
    (gap,) = [pair for pair in found if pair.kind == "gap"]
    assert re.search(r"\d+", gap.reference)[0] == str(39 - 2 * AROUND)  # type: ignore[index]
    assert (found[0].reference, found[-1].reference, found[-1].hypothesis) == ("w0", "w39", "other")
