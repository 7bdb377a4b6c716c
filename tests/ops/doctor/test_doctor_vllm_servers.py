"""What the doctor finds about vLLM servers that run elsewhere."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hosts import free_port
from vllm_server import StandIn, vllm_server

from env.errors import KitError
from env.sources import load_settings
from runtime.demo import CHECKPOINT
from runtime.host.probe import Host
from runtime.ops.doctor.findings import CheckResult, Examination
from runtime.ops.doctor.vllm import servers
from runtime.transcriber import Transcriber, open_transcriber

TEXTS = (".json", ".txt")
START = "start it with: invoke vllm"


def told(*urls: str, **settings: str) -> CheckResult:
    variables = {"ASR_ENGINE": "vllm", "ASR_VLLM_URL": ",".join(urls), **settings}
    outcome = servers(Examination(Host(), load_settings(variables), False, "host"))
    assert outcome
    return outcome


@pytest.fixture
def vllm(transcriber: Transcriber) -> Iterator[StandIn]:
    with vllm_server(transcriber) as stand_in:
        yield stand_in


def test_a_server_that_is_well(vllm: StandIn) -> None:
    assert told(f"{vllm.url}/") == CheckResult("pass", f"{vllm.url}: vLLM 0.18.0, demo, 4096 tokens")


@pytest.mark.parametrize(
    ("changes", "status", "evidence", "fix"),
    [
        ({"template": lambda text: f"<user>{text}</user>"}, "fail", "changes the kit's prompts", START),
        (
            {"version": "0.23.0"},
            "warn",
            "vLLM 0.23.0, demo, 4096 tokens; the kit is tried with vLLM 0.18.0",
            "install vLLM 0.18.0 there",
        ),
        ({"version": "0.17.1"}, "fail", "the kit needs vLLM 0.18 or newer", "install vLLM 0.18.0 there"),
        ({"max_model_len": 700}, "fail", "700 tokens, 770 needed", "restart it with --max-model-len 770"),
        ({"health": 503}, "fail", "HTTP: answers 503", START),
        ({"key": "sesame"}, "fail", "401", "export ASR_VLLM_KEY=…"),
    ],
)
def test_a_server_that_is_not(changes: dict[str, Any], status: str, evidence: str, fix: str, vllm: StandIn) -> None:
    for name, value in changes.items():
        setattr(vllm, name, value)
    found = told(vllm.url)
    assert found.status == status, found
    assert evidence in found.evidence
    assert fix in found.fix


def test_a_server_that_asks_for_the_key_gets_it_and_it_is_not_shown(vllm: StandIn) -> None:
    vllm.key = "sesame"
    found = told(vllm.url, ASR_VLLM_KEY="sesame")
    assert found.status == "pass"
    assert "sesame" not in found.evidence


def test_a_server_that_is_away_is_a_warning_where_another_is_well(vllm: StandIn) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    assert told(away) == CheckResult(
        "fail", f"{away}: connection: 127.0.0.1: Connection refused", f"{START}; or take it out of ASR_VLLM_URL"
    )
    found = told(away, vllm.url)
    assert (found.status, away in found.evidence, vllm.url in found.evidence) == ("warn", True, False)


def test_servers_of_different_models(vllm: StandIn, transcriber: Transcriber) -> None:
    with vllm_server(transcriber, model="another") as second:
        found = told(vllm.url, second.url)
    assert (found.status, found.evidence) == ("warn", "they serve different models: another, demo")


def other_checkpoint(folder: Path, numbers: dict[str, int]) -> dict[str, str]:
    """The setting for a checkpoint whose special tokens have these numbers."""
    added = {str(number): {"content": name} for name, number in numbers.items()}
    text = json.dumps({"added_tokens_decoder": added})
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return {"ASR_MODEL": str(folder)}


@pytest.mark.parametrize(
    "numbers", [{"<|im_start|>": 151644, "<asr_text>": 151704}, {"<|im_start|>": 890, "<asr_text>": 951}]
)
def test_a_server_of_another_model_than_the_checkpoint_here(
    numbers: dict[str, int], vllm: StandIn, tmp_path: Path
) -> None:
    checkpoint = other_checkpoint(tmp_path, numbers)
    found = told(vllm.url, ASR_SEGMENT_SECONDS="10", **checkpoint)
    assert found == CheckResult(
        "fail",
        f"{vllm.url}: vLLM 0.18.0, demo, 4096 tokens: its tokens are not those of ASR_MODEL={tmp_path}",
        "export ASR_MODEL=… to a copy of the checkpoint that is served there",
    )


def test_the_engine_refuses_that_server_too(vllm: StandIn, tmp_path: Path) -> None:
    """A checkpoint with one word more: all special tokens have the next number."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in CHECKPOINT.glob("*.*") if path.suffix in TEXTS}
    words, tokens = (json.loads(texts[name]) for name in ("vocab.json", "tokenizer_config.json"))
    tokens["added_tokens_decoder"] = {str(int(key) + 1): entry for key, entry in tokens["added_tokens_decoder"].items()}
    texts |= {"vocab.json": json.dumps({**words, "zz": len(words)}), "tokenizer_config.json": json.dumps(tokens)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    variables = {"ASR_ENGINE": "vllm", "ASR_VLLM_URL": vllm.url, "ASR_MODEL": str(tmp_path)}
    refused = pytest.raises(KitError, match="its tokens are not those of the checkpoint here")
    with refused, open_transcriber(load_settings(variables)):
        pass
    assert "its tokens are not those of ASR_MODEL" in told(vllm.url, ASR_MODEL=str(tmp_path)).evidence


def test_a_checkpoint_that_does_not_tell_is_for_the_check_of_the_weights(vllm: StandIn, tmp_path: Path) -> None:
    for changes in (other_checkpoint(tmp_path, {}), {"ASR_MODEL": str(tmp_path / "absent")}):
        assert told(vllm.url, **changes).status == "pass"
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": ["x"]}', encoding="utf-8")
    assert told(vllm.url, ASR_MODEL=str(tmp_path)).status == "pass"


class NoVllm(http.server.BaseHTTPRequestHandler):
    """Answers {} to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_server_that_is_no_vllm() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NoVllm) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found = told(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert (found.status, "not as vLLM does" in found.evidence) == ("fail", True)


def test_what_another_host_recorded_is_judged_without_asking(tmp_path: Path) -> None:
    entry = {"url": "http://10.0.0.1:8101", "version": "0.18.0", "model": "Qwen3-ASR-1.7B", "max_model_len": 4096}
    (tmp_path / "commands").mkdir()
    (tmp_path / "commands" / "vllm-servers.txt").write_text(json.dumps([entry | {"raw": True}]), encoding="utf-8")
    settings = load_settings({"ASR_ENGINE": "vllm", "ASR_VLLM_URL": "http://10.0.0.1:8101"})
    found = servers(Examination(Host(tmp_path), settings, False, "host"))
    assert found == CheckResult("pass", "http://10.0.0.1:8101: vLLM 0.18.0, Qwen3-ASR-1.7B, 4096 tokens")
