"""The README's picture of the page: `python tests/support/screenshot.py`.

It needs fonts-noto-core and fonts-noto-cjk.
"""

import base64
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from browser import opened
from recordings import joined
from serving import served

from env.sources import load_settings
from runtime.demo import bundled_clips
from runtime.server.routes.web import STATIC
from runtime.transcriber import open_transcriber

SHOWN = ("english-1.wav", "chinese-3.wav", "english-2.wav", "chinese-2.wav", "english-3.wav")


def main() -> None:
    """Transcribe some of the bundled clips, joined, in a browser, and keep what it shows."""
    clips = {clip.path.name: clip for clip in bundled_clips()}
    with (
        TemporaryDirectory() as folder,
        open_transcriber(load_settings({"ASR_DEVICE": "cpu"})) as transcriber,
        served(transcriber, segment_seconds=4) as server,
        opened() as page,
    ):
        talk = Path(folder) / "talk.wav"
        talk.write_bytes(joined([clips[name] for name in SHOWN], transcriber))
        page.open(server.url)
        page.find("#file").send_keys(str(talk))
        page.done()
        page.until("document.querySelector('#timeline svg path')")
        page.run("document.querySelector('#audio').currentTime = 5")
        page.until("document.querySelector('#segments [aria-current]')")
        width, height = page.run("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        picture = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (STATIC / "screenshot.png").write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    main()
