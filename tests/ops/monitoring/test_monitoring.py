"""The dashboard and the rules against a real Prometheus, which asks a real server that has really been used."""

import re
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from engine import free_port, unavailable
from reference import read_json
from serving import PATIENCE, TRANSCRIPTIONS, Served, served
from vllm_server import vllm_server
from watchers import process

from env.sources import load_settings
from runtime.demo import Clip
from runtime.ops.deploy import monitoring
from runtime.transcriber import Transcriber, open_transcriber

DASHBOARD: dict[str, Any] = read_json(monitoring.FILES / "grafana" / "dashboards" / "qwen3-asr.json")
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
METRIC = re.compile(r"\b(?:asr|npu|process)_\w+")
CERTIFIED = {"asr_tls_certificate_expiry_timestamp_seconds"}  # not measured here, where servers have no certificate
ALERTMANAGER = "127.0.0.1:9"  # where nobody listens, and nothing has to be told
LABEL = re.compile(r'(\w+)(?:=~|!=|=)"')
# Names, labels and units as MindCluster's reference of the NPU Exporter has them, of a 910B and a 310P on one host.
NPUS = "".join(
    f'npu_chip_info_{name}{{id="{number}",model_name="{model}",vdie_id="die-{number}",pod_name=""}} {value}\n'
    for number, model, values in (
        (0, "910B4", {"overall_utilization": 63, "hbm_used_memory": 3744, "hbm_total_memory": 32768}),
        (1, "310P3", {"used_memory": 2048, "total_memory": 44280}),
    )
    for name, value in {**values, "utilization": 40, "health_status": 1, "power": 93.5, "temperature": 47}.items()
)


class Relay(ThreadingHTTPServer):
    """Stands between Prometheus and what it asks, so that a test hears of each question."""

    def __init__(self, source: str) -> None:
        self.asked: SimpleQueue[str] = SimpleQueue()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                relay.asked.put(self.path)
                if source:
                    answer = httpx.get(source + self.path, headers={"Accept": self.headers["Accept"]}, timeout=PATIENCE)
                    kind, body = answer.headers["Content-Type"], answer.content
                else:
                    kind, body = "text/plain; version=0.0.4", NPUS.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Prometheus tells."""

        super().__init__(("127.0.0.1", 0), Handler)

    def await_scrapes(self, count: int) -> None:
        """Return when so many have begun from now on: all but the last are done then."""
        while not self.asked.empty():
            self.asked.get()
        for _ in range(count):
            self.asked.get(timeout=PATIENCE)


@dataclass(frozen=True)
class Prometheus:
    """One that runs on loopback."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=PATIENCE).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def evaluate(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression, each with its labels as `metric`."""
        return list(self.ask("query", query=expression.replace("$__rate_interval", "5m"))["result"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server as operators start it."""
    port, out = str(free_port()), tmp_path_factory.mktemp("out")
    words = [sys.executable, "-m", "invoke", "serve"]
    with process(words, "ready on", ASR_PORT=port, ASR_PROFILE="cpu", ASR_DEVICE="cpu", ASR_OUT_DIR=str(out)):
        yield f"http://127.0.0.1:{port}"


def use(server: str, clips: list[Clip]) -> None:
    """Ask for what servers are asked for: all at once, streamed, and what cannot be."""

    def ask(clip: Clip, **data: str) -> int:
        with clip.path.open("rb") as file:
            return httpx.post(server + TRANSCRIPTIONS, files={"file": file}, data=data, timeout=PATIENCE).status_code

    with ThreadPoolExecutor() as pool:
        assert set(pool.map(ask, clips)) == {200}
    assert ask(clips[0], stream="true") == 200
    assert ask(clips[0], temperature="3") == 400


@pytest.fixture(scope="module")
def front(transcriber: Transcriber) -> Iterator[Served]:
    """A server whose engine is vllm."""
    with vllm_server(transcriber) as vllm:
        settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": vllm.url})
        with open_transcriber(settings) as opened, served(opened) as running:
            yield running


@pytest.fixture(scope="module")
def prometheus(
    server: str, front: Served, speech: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with the kit's own files, after it has seen the servers in use. It asks every second."""
    if not shutil.which("prometheus"):
        unavailable("no Prometheus checked the dashboard: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with Relay(server) as relay, Relay("") as npus:
        for each in (relay, npus):
            threading.Thread(target=each.serve_forever, args=(0.05,)).start()
        try:
            environment = {"ASR_STACK": "npu", "ASR_OUT_DIR": str(folder), "ASR_PORT": str(relay.server_address[1])}
            environment["ASR_NPU_EXPORTER"] = f"127.0.0.1:{npus.server_address[1]}"
            environment["ASR_ALERTMANAGER"] = ALERTMANAGER
            settings = load_settings(environment)
            monitoring.write(settings)
            files = monitoring.directory(settings) / "prometheus"
            change(files / "prometheus.yml", "_interval: 15s", "_interval: 1s")
            change(files / "targets" / "asr.json", '"asr:', f'"127.0.0.1:{front.http_server.port}", "127.0.0.1:')
            use(server, speech)  # what has never happened is not counted yet, and nothing can grow from there
            url = f"127.0.0.1:{free_port()}"
            words = ["prometheus", f"--config.file={files / 'prometheus.yml'}", f"--web.listen-address={url}"]
            words.append(f"--storage.tsdb.path={folder / 'data'}")
            with process(words, "ready to receive web requests"):
                relay.await_scrapes(2)
                use(server, speech)
                relay.await_scrapes(2)
                yield Prometheus(f"http://{url}")
        finally:
            for each in (relay, npus):
                each.shutdown()


def change(file: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_it_asks_the_server_and_the_npu_exporter(prometheus: Prometheus) -> None:
    found = [(target["labels"]["job"], target["health"]) for target in prometheus.ask("targets")["activeTargets"]]
    assert sorted(found) == [("asr", "up"), ("asr", "up"), ("npu", "up")]


def test_it_tells_the_alertmanager_that_the_settings_name(prometheus: Prometheus) -> None:
    (found,) = prometheus.ask("alertmanagers")["activeAlertmanagers"]
    assert found["url"] == f"http://{ALERTMANAGER}/api/v2/alerts"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"].partition(" · ")[0])
def test_every_query_of_the_dashboard_finds_data(prometheus: Prometheus, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        samples = prometheus.evaluate(target["expr"])
        assert samples, target["expr"]
        for sample in samples:
            assert float(sample["value"][1]) >= 0, target["expr"]  # nor NaN
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert sample["metric"][label], label


def test_everything_named_is_measured(prometheus: Prometheus) -> None:
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["health"] for rule in rules] == ["ok"] * len(rules)
    expressions = [rule["query"] for rule in rules]
    expressions += [target["expr"] for panel in PANELS for target in panel["targets"]]
    measured, labels = set(prometheus.ask("label/__name__/values")), set(prometheus.ask("labels"))
    for expression in expressions:
        assert set(METRIC.findall(expression)) <= measured | CERTIFIED, expression
        assert set(LABEL.findall(expression)) <= labels | {"alertstate"}, expression


def test_nothing_is_alarming_about_a_server_at_work(prometheus: Prometheus) -> None:
    assert prometheus.ask("alerts")["alerts"] == []
