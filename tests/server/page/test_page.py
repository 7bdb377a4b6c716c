"""The page in a real Chromium: from a file or a microphone to words, for eyes, keyboards and screen readers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from browser import Page, opened
from recordings import joined
from selenium.webdriver.common.keys import Keys as Key
from selenium.webdriver.support.select import Select
from serving import Served, served

from runtime.demo import Clip
from runtime.transcriber import Transcriber


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser saves files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def clip(speech: list[Clip]) -> Clip:
    """A short clip in which somebody speaks English."""
    return min((clip for clip in speech if clip.language == "English"), key=lambda clip: clip.path.stat().st_size)


@pytest.fixture(scope="module")
def running(clip: Clip, downloads: Path) -> Iterator[Page]:
    """A browser whose microphone hears the clip, once."""
    microphone = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={clip.path}%noloop",
    )
    with opened(*microphone, downloads=downloads) as page:
        yield page


@pytest.fixture(scope="module")
def server(transcriber: Transcriber) -> Iterator[Served]:
    """A server that cuts audio into short segments."""
    with served(transcriber, segment_seconds=4) as running_server:
        yield running_server


@pytest.fixture
def page(running: Page, server: Served) -> Iterator[Page]:
    """The page, about which the browser has nothing to complain."""
    running.open(server.url)
    yield running
    assert running.complaints() == []


@pytest.fixture(scope="module")
def talk(speech: list[Clip], transcriber: Transcriber, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of several segments, in English and Chinese."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    path.write_bytes(joined((speech[0], speech[1], speech[-1]), transcriber))
    return path


def verbose(server: Served, path: Path) -> dict[str, Any]:
    """The server's own answer."""
    answer = server.post(files={"file": path.read_bytes()}, data={"response_format": "verbose_json"}).json()
    assert isinstance(answer, dict)
    return answer


def test_a_file_becomes_segments_with_sound(page: Page, server: Served, talk: Path) -> None:
    page.find("#file").send_keys(str(talk))
    heard = page.done()
    segments = verbose(server, talk)["segments"]
    assert len(segments) > 2
    assert heard == "\n".join(segment["text"] for segment in segments)
    assert page.text("#name") == "talk.wav"
    assert f"{len(segments)} segments" in page.text("#status")
    page.until("document.querySelector('#timeline svg path')")
    assert page.run("return document.querySelectorAll('#timeline .band').length") == len(segments)
    languages = page.run("return [...document.querySelectorAll('#segments .text')].map(e => e.lang)")
    assert set(languages) == {"en", "zh"}
    page.find("#segments li:nth-child(2) button").click()
    page.until("document.querySelector('#segments li:nth-child(2) [aria-current=true]')")
    assert page.run("return document.querySelector('#audio').currentTime") >= segments[1]["start"]
    page.run(
        "sought = []; document.querySelector('#audio').addEventListener('seeking', "
        "({ target }) => sought.push(target.currentTime))"
    )
    page.find("#timeline").click()  # in its middle
    middle = verbose(server, talk)["duration"] / 2
    page.until(f"sought.some((time) => Math.abs(time - {middle}) < 1)")  # it plays on from there


def test_downloads_are_what_the_server_writes(page: Page, server: Served, talk: Path, downloads: Path) -> None:
    page.find("#file").send_keys(str(talk))
    page.done()
    for extension, form in {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}.items():
        page.find(f"#download-{extension}").click()
        saved = downloads / f"talk.{extension}"
        page.wait(saved.is_file)
        own = server.post(files={"file": talk.read_bytes()}, data={"response_format": form}).text
        written = saved.read_bytes().decode()
        assert (json.loads(written) if extension == "json" else written) == (
            json.loads(own) if extension == "json" else own
        )


def test_the_text_is_copied(page: Page, server: Served, talk: Path) -> None:
    page.find("#file").send_keys(str(talk))
    page.done()
    page.find("#copy").click()
    page.until("document.querySelector('#copy').textContent === 'Copied'")
    page.find("#context").send_keys(Key.CONTROL, "v")
    assert page.run("return document.querySelector('#context').value") == verbose(server, talk)["text"]


def test_a_file_may_be_dropped_anywhere(page: Page, clip: Clip) -> None:
    page.driver.execute_script(
        """const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(arguments[0]), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], 'dropped.wav'));
        const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
        document.body.dispatchEvent(new DragEvent('drop', options));""",
        base64.b64encode(clip.path.read_bytes()).decode(),
    )
    assert page.done() == clip.text
    assert page.text("#name") == "dropped.wav"


def test_the_microphone_is_heard_while_one_speaks_and_afterwards(page: Page, clip: Clip) -> None:
    page.find("#record").click()
    page.until("/scaleX\\(0\\.[3-9]/.test(document.querySelector('#level').style.transform)")
    assert page.run("return document.activeElement.id") == "stop"
    page.until(f"document.querySelector('#live').textContent === '{clip.text}'")
    page.reads("#status", "Recording")
    assert page.text("#elapsed") > "0:01"
    page.find("#stop").click()
    assert page.done() == clip.text
    assert page.text("#name") == "Recording"
    page.until("isFinite(document.querySelector('#audio').duration)")


def test_without_live_text_the_recording_is_transcribed_all_the_same(page: Page, clip: Clip) -> None:
    page.run("window.WebSocket = function () { throw new SyntaxError() }")
    page.find("#record").click()
    page.until("document.querySelector('#status').textContent === 'Recording; the text comes when you stop'")
    page.until("document.querySelector('#elapsed').textContent >= '0:03'")
    page.find("#stop").click()
    assert page.done() == clip.text


def test_a_recording_can_be_discarded(page: Page) -> None:
    page.find("#record").click()
    page.until("!document.querySelector('#recording').hidden")
    page.find("#discard").click()
    page.until("document.querySelector('#status').textContent === 'Cancelled'")
    assert page.find("#record").is_displayed()


def test_the_keyboard_is_enough(page: Page, talk: Path) -> None:
    visited: dict[str, str] = {}

    def tab_to(identity: str) -> None:
        for _ in range(30):
            page.press(Key.TAB)
            at = page.run("return document.activeElement.id || document.activeElement.tagName")
            outlined = (
                "getComputedStyle(document.activeElement.closest('.drop') ?? document.activeElement).outlineStyle"
            )
            visited[at] = page.run(f"return {outlined}")
            if at == identity:
                return
        raise AssertionError(f"{identity} is not among {list(visited)}")

    tab_to("file")
    tab_to("language")
    page.press("E")
    assert Select(page.find("#language")).first_selected_option.text == "English"
    tab_to("context")
    page.press("train")
    page.find("#file").send_keys(str(talk))
    page.done()
    tab_to("again")
    page.press(Key.ENTER)
    page.done()
    tab_to("copy")
    tab_to("download-json")
    tab_to("BUTTON")
    page.press(Key.ENTER)
    page.until("document.querySelector('#segments li:first-child [aria-current]')")
    assert list(visited)[:5] == ["switch", "file", "record", "language", "context"]
    unmarked = [identity for identity, outline in visited.items() if outline == "none"]
    assert set(unmarked) <= {"BODY", "audio"}  # the browser's own, and a player that marks its parts itself


def test_both_languages(page: Page) -> None:
    assert page.run("return document.documentElement.lang") == "en"
    assert [option.text for option in Select(page.find("#language")).options][1:] == ["Chinese", "English"]
    try:
        page.find("#switch").click()
        assert page.run("return document.documentElement.lang") == "zh-CN"
        assert page.text("h2") == "音频"
        assert [option.text for option in Select(page.find("#language")).options] == ["自动识别", "中文", "英语"]
        page.driver.refresh()
        assert page.text("h2") == "音频"
        page.run("localStorage.clear()")
        agent = {"userAgent": page.run("return navigator.userAgent"), "acceptLanguage": "zh-TW"}
        page.driver.execute_cdp_cmd("Network.setUserAgentOverride", agent)
        page.driver.refresh()
        assert page.text("h2") == "音频"
    finally:
        page.run("localStorage.clear()")
        page.driver.execute_cdp_cmd("Network.setUserAgentOverride", {**agent, "acceptLanguage": "en"})


def test_both_languages_say_the_same_things(page: Page) -> None:
    english, chinese, used = page.driver.execute_async_script(
        """const done = arguments[0];
        import(new URL('static/words.js', location)).then(({ WORDS }) => done([
          Object.keys(WORDS.en), Object.keys(WORDS.zh),
          [...document.querySelectorAll('[data-words]')].map((element) => element.dataset.words),
        ]));"""
    )
    assert english == chinese
    assert set(used) <= set(english)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_people_with_disabilities(page: Page, talk: Path, scheme: str) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.find("#file").send_keys(str(talk))
    page.done()
    page.until("!document.getAnimations().length")
    assert [(each["id"], each["nodes"]) for each in Axe().run(page.driver)["violations"]] == []
