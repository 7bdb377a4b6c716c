"""The support bundle holds what the doctor needs elsewhere, and no secret."""

import base64
import json
import os
import stat
import tarfile
from pathlib import Path

import fake_hosts
import pytest
from archives import texts, unpacked
from fake_hosts import SAMPLES, path, script
from invoke import Collection, Program

from env.errors import KitError
from env.sources import load_settings
from runtime.host.probe import Host
from runtime.ops import support_bundle
from runtime.ops.doctor import examine
from runtime.redaction import MASK, redact
from runtime.tasks import diagnose

__all__ = ["path"]  # a fixture

SECRETS = {
    "ASR_HUB_TOKEN": "tok-9c1f7a",
    "HF_TOKEN": "hf_QmVyeVNlY3JldFRva2Vu",
    "HTTPS_PROXY": "http://builder:pr0xy%2Fw0rd@proxy.example:3128",
    "PIP_INDEX_URL": "https://reader:1ndexw0rd@index.example/simple",
    "MY_PASSWORD": "s3cretw0rd",
    "ASR_VLLM_KEY": "vllm-k3y-8d2e",
    "ASR_VLLM_URL": "http://front:vllmpassw0rd@vllm.example:8100,http://vllm.example:8101",
    "ASR_VLLM_FLAGS": "--api-key fl4gs-k3y --max-num-seqs 8",
}
HIDDEN = ("k3y", "tok-9c1f7a", "hf_QmVyeVNlY3JldFRva2Vu", "pr0xy", "w0rd", "s3cret", "b3Blbg", "eyJhbGci")
LOG = """\
fetching https://reader:1ndexw0rd@index.example/simple/torch/ through http://builder:pr0xy/w0rd@proxy.example:3128
GET /v1/models Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln
headers {'Authorization': 'Basic b3Blbjpyb29tMTIz', 'Accept': '*/*'}
token=tok-9c1f7a, HF_TOKEN=hf_QmVyeVNlY3JldFRva2Vu; started with --api-key s3cretw0rd
[warning] http://vllm.example:8101 is lost: Authorization: Bearer vllm-k3y-8d2e [runtime.engines.vllm]
transcribed 12 clips, max_new_tokens: 512
"""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output directory of a host with secrets in its environment and its logs."""
    for name in [name for name in os.environ if name.startswith("ASR_")]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    monkeypatch.setenv("ASR_OUT_DIR", str(out))
    (out / "logs").mkdir(parents=True)
    (out / "logs/server.log").write_text("early\n" * support_bundle.MOST_LINES + LOG, encoding="utf-8")
    return out


@pytest.fixture
def docker(path: Path) -> Path:
    """A docker with one container of the kit, on PATH, whose log and proxy tell secrets."""
    info = fake_hosts.info(HttpProxy=SECRETS["HTTPS_PROXY"])
    (path / "log").write_text(LOG, encoding="utf-8")
    (path / "ps").write_text(fake_hosts.container("qwen3-asr-8000-asr-1"), encoding="utf-8")
    cases = f"info) echo '{info}' ;; ps) cat {path}/ps ;; logs) cat {path}/log >&2 ;; *) exit 1 ;;"
    script(path, "docker", f'case "$1" in {cases} esac')
    script(path, "npu-smi", f'[ "$1 $2" = "info " ] && cat {SAMPLES}/910B3-x8-26.0.rc1-container-column.txt')
    return path


@pytest.mark.usefixtures("docker")
def test_no_secret_is_in_it(out: Path, tmp_path: Path) -> None:
    bundle = support_bundle.collect(load_settings(), out)
    found = texts(unpacked(bundle.path, tmp_path / "unpacked"))
    for name, text in found.items():
        for secret in HIDDEN:
            assert secret not in text, (name, text[max(text.find(secret) - 80, 0) :][:160])
    assert MASK in found["settings.txt"]
    assert MASK in found["commands/docker-info.txt"]
    for log in ("logs/logs-server.log", "logs/qwen3-asr-8000-asr-1.log"):
        assert found[log].count(MASK) >= 6
        assert "transcribed 12 clips, max_new_tokens: 512" in found[log]
        assert "index.example/simple/torch/" in found[log]
    assert len(found["logs/logs-server.log"].splitlines()) == support_bundle.MOST_LINES


@pytest.mark.usefixtures("docker")
def test_it_is_only_for_its_owner(out: Path) -> None:
    bundle = support_bundle.collect(load_settings(), out)
    assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o600
    assert [path.name for path in out.iterdir() if path.is_file()] == [bundle.path.name]
    with tarfile.open(bundle.path) as tar:
        assert all(entry.isfile() and entry.mode == 0o600 for entry in tar)
        assert {name.partition("/")[0] for name in tar.getnames()} == {bundle.path.name.removesuffix(".tar.gz")}


@pytest.mark.usefixtures("docker")
def test_the_doctor_comes_to_the_same_findings_elsewhere(out: Path, tmp_path: Path) -> None:
    folder = unpacked(support_bundle.collect(load_settings(), out).path, tmp_path / "unpacked")
    there = json.loads((folder / "doctor.json").read_text(encoding="utf-8"))
    host = Host(folder)
    settings = support_bundle.settings_for(host)
    assert settings.out_dir == out
    assert settings.hub_token is None
    here = examine(settings, root=folder)
    assert [vars(finding) for finding in here] == there["findings"]


def test_an_atlas_host_examined_elsewhere(
    out: Path, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With npu-smi on PATH and a whole driver under a root that stands for /."""
    monkeypatch.setenv("ASR_PROFILE", "atlas-800-a2")
    monkeypatch.setenv("ASR_NPUS", "5")
    monkeypatch.setenv("ASR_MODEL", str(tmp_path / "Qwen3-ASR-1.7B"))
    monkeypatch.setenv("ASR_HUB_ENDPOINT", "http://127.0.0.1:9")
    first = support_bundle.collect(load_settings(), out)
    folder = unpacked(first.path, tmp_path / "unpacked")
    before = json.loads((folder / "doctor.json").read_text(encoding="utf-8"))["findings"]
    assert (docker / "npu-smi").exists()
    for name in [*SECRETS, "ASR_PROFILE", "ASR_NPUS", "ASR_MODEL", "ASR_HUB_ENDPOINT"]:
        monkeypatch.delenv(name)
    after = [vars(finding) for finding in examine(support_bundle.settings_for(Host(folder)), root=folder)]
    assert after == before
    found = {finding["title"]: finding for finding in after}
    assert "8 × 910B3, profile atlas-800-a2" in found["NPU"]["evidence"]
    assert "VLLMWorker_TP (pid 2201345: 58344 MB)" in found["Device memory"]["evidence"]
    assert "NPU 2: Alarm" in found["Health"]["evidence"]


@pytest.mark.usefixtures("docker")
def test_the_task_says_what_is_in_it(out: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = Program(namespace=Collection.from_module(diagnose))
    program.run(["invoke", "support-bundle", "--output", str(tmp_path / "elsewhere")], exit=False)
    shown = capsys.readouterr().out
    (archive,) = (tmp_path / "elsewhere").iterdir()
    assert f"Written to {archive}" in shown
    for part in ("doctor.txt", "versions.json", "settings.txt", "logs/", "commands/", "/etc/os-release"):
        assert part in shown
    assert not [path for path in out.iterdir() if path.is_file()]


@pytest.mark.usefixtures("docker")
def test_a_place_that_cannot_be_written(out: Path) -> None:
    (out / "file").touch()
    with pytest.raises(KitError, match=r"cannot be written.*--output DIR"):
        support_bundle.collect(load_settings(), out / "file" / "inside")


BASIC = base64.b64encode(b"user:pass").decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:pass@host/x", f"http://{MASK}@host/x"),
        ("https://token@host and http://a:p@ss/w@host", f"https://{MASK}@host and http://{MASK}@host"),
        (f"Authorization: Basic {BASIC}\nnext", f"Authorization: {MASK}\nnext"),
        ('{"Authorization": "Bearer abc.def", "a": 1}', f'{{"Authorization": "{MASK}", "a": 1}}'),
        ("Set-Cookie: sid=1; Path=/", f"Set-Cookie: {MASK}"),
        ("curl --api-key abcd1234 url", f"curl --api-key {MASK} url"),
        ("ASR_HUB_TOKEN=abcd1234 next", f"ASR_HUB_TOKEN={MASK} next"),
        ('"password": "abcd1234"', f'"password": "{MASK}"'),
        ("https://h/f?X-Amz-Signature=abcd1234&x=1", f"https://h/f?X-Amz-Signature={MASK}&x=1"),
        ("using hf_abcdefgh12345 now", f"using {MASK} now"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
            f"-----BEGIN RSA PRIVATE KEY----- {MASK} -----END RSA PRIVATE KEY-----",
        ),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens: 512, tokenizer: Qwen2Tokenizer",
        "http://127.0.0.1:8000/health/ready is ready",
        "| 0     910B4               | OK            | 84.0        38                0    / 0             |",
        "mail somebody@example.org about https://example.org/path",
        "basic information, bearer of news",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert redact(text) == text
