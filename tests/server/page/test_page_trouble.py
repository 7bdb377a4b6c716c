"""The page in a real Chromium when something is in the way: it says so in words, and goes on when it can."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, opened
from selenium.webdriver.common.keys import Keys as Key
from serving import Served, held, loading, served
from tcp_proxy import tcp_proxy

from runtime.demo import Clip
from runtime.engines import EngineError
from runtime.server.service import Service
from runtime.transcriber import Transcriber

HIDDEN = "document.querySelector('{}').hidden"
SHOWN = "!document.querySelector('{}').hidden"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser."""
    with opened() as running:
        yield running


@pytest.fixture(autouse=True)
def policy_is_kept(page: Page) -> Iterator[None]:
    """The browser complains about answers that are errors, and about nothing else."""
    page.complaints()
    yield
    others = [words for words in page.complaints() if "Failed to load resource" not in words]
    assert others == []


@pytest.fixture
def clip(speech: list[Clip]) -> Clip:
    """Somebody speaks."""
    return speech[0]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file without audio."""
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF and nothing more")
    return path


def test_a_broken_file_is_told_in_the_servers_words(page: Page, server: Served, broken: Path, clip: Clip) -> None:
    page.open(server.url)
    page.find("#file").send_keys(str(broken))
    page.until(SHOWN.format("#error"))
    message = server.post(files={"file": ("broken.wav", broken.read_bytes())}).json()["error"]["message"]
    assert page.text("#error strong") == "This audio cannot be used"
    assert page.text("#error p") == message
    assert page.run("return document.querySelector('#error').getAttribute('role')") == "alert"
    page.find("#file").send_keys(str(clip.path))
    page.until(HIDDEN.format("#error"))
    assert page.done() == clip.text


def test_a_file_that_is_too_large_is_not_sent(page: Page, transcriber: Transcriber, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(bytes((1 << 20) + 1))
    with served(transcriber, upload_max_mib=1) as server:
        page.open(server.url)
        page.find("#file").send_keys(str(large))
        page.until(SHOWN.format("#error"))
    assert page.text("#error p") == "It has 2 MiB; this server takes up to 1 MiB."


def test_a_key_is_asked_for(page: Page, transcriber: Transcriber, clip: Clip, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alice: sk-one\n", encoding="utf-8")
    with served(transcriber, keys_file=file) as server:
        page.open(server.url)
        assert page.run("return document.activeElement.id") == "key"
        page.press("sk-two" + Key.ENTER)
        page.until(SHOWN.format("#error"))
        assert page.text("#error strong") == "The server does not know this key"
        page.press("sk-one" + Key.ENTER)
        page.until(HIDDEN.format("#key-form"))
        page.find("#file").send_keys(str(clip.path))
        assert page.done() == clip.text
        assert page.run("return Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0
        page.open(server.url)
        page.find("#keep-key").click()
        page.find("#key").send_keys("sk-one", Key.ENTER)
        page.until(HIDDEN.format("#key-form"))
        page.open(server.url)
        page.until(SHOWN.format("#server"))


def test_a_server_that_starts_is_waited_for(page: Page, transcriber: Transcriber, clip: Clip) -> None:
    with loading() as (server_state, port):
        page.driver.get(f"http://127.0.0.1:{port}")
        page.until("document.querySelector('#status').textContent.includes('loading weights/model')")
        page.find("#file").send_keys(str(clip.path))
        page.until("document.querySelector('#status').textContent.includes('loading weights/model')")
        service = Service(transcriber)
        server_state.ready(service)
        assert page.done() == clip.text
    service.close()


def test_text_grows_and_cancelling_frees_the_place(page: Page, transcriber: Transcriber, clip: Clip) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server:
        page.open(server.url)
        page.find("#file").send_keys(str(clip.path))
        decoding = engine.next()
        page.reads("#status", "Waiting for the first words")
        tokens = transcriber.loaded.processor.tokenizer.encode("language English<asr_text>station train")
        for token in tokens:
            decoding.tell(token)
        page.until("document.querySelector('#live').textContent === 'station train'")
        page.reads("#status", "Transcribing")
        page.find("#cancel").click()
        assert decoding.cancelled.wait(timeout=60)
        page.reads("#status", "Cancelled")
        assert page.text("#live").strip() == "station train"
        page.find("#again").click()
        engine.next().tell(EngineError("the engine", "has died"))
        page.until(SHOWN.format("#error"))
        assert "has died" in page.text("#error p")


def test_a_lost_connection_is_told(page: Page, transcriber: Transcriber, clip: Clip) -> None:
    silent, engine = held(transcriber)
    with served(silent) as server, tcp_proxy(server.http_server.port) as (url, cut):
        page.open(url)
        page.find("#file").send_keys(str(clip.path))
        decoding = engine.next()
        for token in transcriber.loaded.processor.tokenizer.encode("language English<asr_text>station"):
            decoding.tell(token)
        page.until("document.querySelector('#live').textContent === 'station'")
        cut()
        page.until(SHOWN.format("#error"))
        assert page.text("#error strong") == "The connection was lost before the text was complete"
        assert page.text("#live").strip() == "station"
        page.find("#error button").click()
        page.until("document.querySelector('#error strong').textContent === 'The server cannot be reached'")


def test_a_full_queue_is_told_and_can_be_tried_again(page: Page, transcriber: Transcriber, clip: Clip) -> None:
    silent, engine = held(transcriber)
    with served(silent, max_waiting=1) as server:
        page.open(server.url)
        page.find("#file").send_keys(str(clip.path))
        engine.next()
        first = page.driver.current_window_handle
        page.driver.switch_to.new_window("tab")
        page.open(server.url)
        page.find("#file").send_keys(str(clip.path))
        page.until(SHOWN.format("#error"))
        assert page.text("#error strong") == "The server is busy, please try again in a moment"
        assert "the limit is 1" in page.text("#error p")
        assert page.text("#error button") == "Try again"
        page.driver.close()
        page.driver.switch_to.window(first)


def test_a_page_without_a_microphone_says_what_to_do(page: Page, server: Served) -> None:
    page.open(server.url)
    page.run("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.find("#record").click()
    page.until(SHOWN.format("#error"))
    assert f"http://localhost:{server.http_server.port}" in page.text("#error p")
    page.open(server.url)
    page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.find("#record").click()
    page.until(SHOWN.format("#error"))
    assert "Allow it" in page.text("#error p")


def test_the_text_cut_off_is_marked(page: Page, transcriber: Transcriber, clip: Clip) -> None:
    with served(transcriber, max_new_tokens=5) as server:
        page.open(server.url)
        page.find("#file").send_keys(str(clip.path))
        page.done()
        assert "Cut off" in page.text("#segments .flaw")
