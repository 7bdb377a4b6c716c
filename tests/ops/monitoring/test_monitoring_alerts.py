"""Each alert fires for its fault and for nothing else: Prometheus' own tool plays the time series."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine import unavailable

from runtime.ops.deploy import monitoring

RULES = monitoring.FILES / "prometheus" / "rules.yml"
DAY = 86400
UP, STARTED = 'up{job="asr",instance="asr:8000"}', 'process_start_time_seconds{job="asr",instance="asr:8000"}'
READY = 'asr_ready{job="asr",instance="asr:8000"}'
FAILED = 'asr_requests_total{route="/v1/audio/transcriptions",code="500"}'
VLLM = 'asr_vllm_up{server="vLLM on npu:1"}'
EXPIRY = "asr_tls_certificate_expiry_timestamp_seconds"
EXPORTER, NPU = 'up{job="npu",instance="exporter"}', 'npu_chip_info_health_status{id="3",instance="exporter"}'
# Prometheus' own notation: the first value, what each sample adds to the one before, and how many follow; _ is none.
HEALTHY = {
    UP: "1x90",
    STARTED: "100x90",
    READY: "1x90",
    "asr_engine_restarts_total": "0x90",
    'asr_requests_total{route="/v1/audio/transcriptions",code="200"}': "0+60x90",
    'asr_requests_total{route="/health/ready",code="503"}': "0+60x90",
    'asr_first_token_seconds_bucket{le="8"}': "0+60x90",
    'asr_first_token_seconds_bucket{le="15"}': "0+60x90",
    'asr_first_token_seconds_bucket{le="+Inf"}': "0+60x90",
    "asr_first_token_seconds_count": "0+60x90",
    'asr_queue_wait_seconds_bucket{le="30"}': "0+60x90",
    'asr_queue_wait_seconds_bucket{le="60"}': "0+60x90",
    'asr_queue_wait_seconds_bucket{le="+Inf"}': "0+60x90",
    'asr_info{engine="transformers"}': "1x90",
    VLLM: "1x90",
    'asr_device_memory_bytes{kind="used"}': "90x90",
    'asr_device_memory_bytes{kind="total"}': "100x90",
    'asr_disk_free_bytes{directory="out"}': f"{2**31}x90",
    'asr_disk_free_bytes{directory="spool"}': f"{2**29}x90",
    EXPIRY: f"{31 * DAY}x90",
    EXPORTER: "1x90",
    NPU: "1x90",
}
FAULTS = {
    "AsrDown": {UP: "1x50 0x40"},
    "AsrNotReady": {READY: "1x42 0x48"},
    "AsrOftenNotReady": {READY: "1x20 0x9 1x3 0x9 1x3 0x9 1x40"},
    "AsrCrashLoop": {STARTED: "100x45 200x2 300x2 400x40"},
    "AsrRestarts": {STARTED: "100x15 200x15 300x15 400x40"},
    "AsrEngineRestarted": {"asr_engine_restarts_total": "0x58 1x32"},
    "AsrErrors": {FAILED: "0x43 0+4x46"},
    "AsrErrorBudget": {FAILED: "0+2x90"},
    "AsrSlow": {'asr_first_token_seconds_bucket{le="8"}': "0+56x90"},
    "AsrQueueFull": {'asr_requests_total{route="/v1/audio/transcriptions",code="429"}': "0+1x90"},
    "AsrQueueSlow": {'asr_queue_wait_seconds_bucket{le="30"}': "0+56x90"},
    "AsrVllmDown": {VLLM: "1x50 0x40"},
    "AsrVllmUnstable": {VLLM: "1x20 0x3 1x3 0x3 1x3 0x3 1x50"},
    "AsrDeviceMemory": {'asr_device_memory_bytes{kind="used"}': "96x90"},
    "AsrDiskLow": {'asr_disk_free_bytes{directory="out"}': f"{2**29}x90"},
    "AsrCertificateExpiring": {EXPIRY: f"{29 * DAY}x90"},
    "AsrCertificateExpiresSoon": {EXPIRY: f"{6 * DAY}x90"},
    "NpuUnhealthy": {NPU: "1x30 0x60"},
    "NpuExporterDown": {EXPORTER: "1x30 0x60", NPU: "1x30 _x60"},
}
OTHER_WAYS = {
    "a_server_that_nobody_asks": ("AsrDown", {UP: "1x30 _x60"}),
    "a_full_spool": ("AsrDiskLow", {'asr_disk_free_bytes{directory="spool"}': f"{2**27}x90"}),
    "a_certificate_that_has_expired": ("AsrCertificateExpiresSoon", {EXPIRY: "60x90"}),
    "an_exporter_that_tells_of_no_npu": ("NpuExporterDown", {NPU: "1x30 _x60"}),
}
BEARABLE = {
    "a_vllm_server_that_loads_its_model_again": {VLLM: "1x57 0x2 1x31"},
    "a_vllm_server_that_was_lost_twice": {VLLM: "1x20 0x3 1x3 0x3 1x60"},
    "the_memory_that_vllm_keeps": {
        'asr_info{engine="transformers"}': "_x90",
        'asr_info{engine="vllm"}': "1x90",
        'asr_device_memory_bytes{kind="used"}': "98x90",
    },
    "a_short_restart": {READY: "1x50 0x5 1x35", STARTED: "100x50 200x40"},
    "a_first_start": {
        UP: "_x43 1x47",
        READY: "_x43 0x14 1x33",
        STARTED: "_x43 100x47",
        "asr_first_token_seconds_count": "_x90",
    },
    "an_upgrade_that_was_taken_back": {STARTED: "100x50 200x4 300x36", READY: "1x50 0x1 1x3 0x1 1x36"},
    "one_failure_in_an_hour": {FAILED: "0x58 1x32"},
    "as_many_failures_as_the_objective_allows": {FAILED: "0+0.5x90"},
    "a_failure_of_three_requests_at_night": {
        'asr_requests_total{route="/v1/audio/transcriptions",code="200"}': "0x30 2x60",
        FAILED: "0x30 1x60",
    },
    "one_wait_in_thirty": {'asr_queue_wait_seconds_bucket{le="30"}': "0+58x90"},
    "one_slow_transcript_in_thirty": {'asr_first_token_seconds_bucket{le="8"}': "0+58x90"},
    "a_host_without_npus": {EXPORTER: "_x90", NPU: "_x90"},
    "a_server_without_a_certificate": {EXPIRY: "_x90"},
}


def play(folder: Path, changed: dict[str, str], expected: list[str], *, interval: str = "1m") -> None:
    """Have Prometheus play the series for an hour, and compare which alerts fire then; `changed` are as often as
    `interval` says, the healthy ones too."""
    if not shutil.which("promtool"):
        unavailable("no Prometheus checked the alerts: apt-get install prometheus")
    question = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "60m"}
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected]
    healthy = {name: values if interval == "1m" else values.replace("x90", "x360") for name, values in HEALTHY.items()}
    series = [{"series": name, "values": values} for name, values in {**healthy, **changed}.items()]
    test = {"interval": interval, "input_series": series, "promql_expr_test": [{**question, "exp_samples": samples}]}
    file = folder / "test.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}), encoding="utf-8")
    found = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_for_its_fault_alone(tmp_path: Path, alert: str) -> None:
    play(tmp_path, FAULTS[alert], [alert])


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_an_alert_fires_for_its_other_fault(tmp_path: Path, way: str) -> None:
    alert, changed = OTHER_WAYS[way]
    play(tmp_path, changed, [alert])


@pytest.mark.parametrize("changed", [{}, *BEARABLE.values()], ids=["healthy", *BEARABLE])
def test_no_alert_fires_for_what_passes(tmp_path: Path, changed: dict[str, str]) -> None:
    play(tmp_path, changed, [])


def test_a_crash_loop_that_is_up_for_90_s_and_gone_for_15_s_is_seen(tmp_path: Path) -> None:
    """Every 15 s, as Prometheus asks: too short for what waits until a server is gone, or not ready, for long."""
    loop: dict[str, Any] = {UP: [], READY: [], STARTED: []}
    for number in range(50):
        loop[UP] += ["1"] * 6 + ["0"]
        loop[READY] += ["0"] * 6 + ["stale"]
        loop[STARTED] += [str(1000 + 105 * number)] * 6 + ["stale"]
    series = {name: " ".join(values) for name, values in loop.items()}
    play(tmp_path, series, ["AsrCrashLoop", "AsrOftenNotReady"], interval="15s")


def test_each_alert_is_tried() -> None:
    assert re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")) == list(FAULTS)
