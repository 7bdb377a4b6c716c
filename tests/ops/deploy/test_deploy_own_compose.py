"""An operator's own compose file: merged last, shown, refused early; and the page of what to loosen."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from archives import texts, unpacked
from engine import check_engine, docker, stand_in_base
from hosting import A2, Fake, an_a2, faking

from env.errors import KitError
from env.sources import PROJECT, load_settings
from runtime.host import docker as commands
from runtime.ops import support_bundle
from runtime.ops.deploy import compose as up
from runtime.ops.deploy import override, own_compose
from runtime.ops.deploy.compose_project import COMPOSE
from runtime.ops.doctor import Finding, examine
from runtime.ops.doctor.checks import OWN_FILE

PAGES = {name: (PROJECT / "docker" / name).read_text("utf-8") for name in ("HARDENING.md", "HARDENING.zh-CN.md")}
EXAMPLES = {name: re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) for name, text in PAGES.items()}
OWN = "services:\n  asr:\n    read_only: false  # until the paths are known\n    cap_add: [SYS_NICE]\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    return faking(tmp_path / "bin", monkeypatch)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file that loosens two things."""
    path = tmp_path / "own.yaml"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.fixture
def compose() -> None:
    """Skip where compose v1 is not installed: it is the stricter one, and needs no engine."""
    if not commands.read_output([commands.OLD_COMPOSE, "version", "--short"]):
        pytest.skip("docker-compose is not installed")


def finding(path: Path) -> Finding:
    """What the quick checks, which `make up` makes, say of a file."""
    settings = load_settings({"ASR_COMPOSE_FILE": str(path)})
    (found,) = [finding for finding in examine(settings, quick=True) if finding.code == OWN_FILE]
    return found


@pytest.mark.usefixtures("compose")
def test_it_is_shown_with_what_it_changes(own: Path) -> None:
    found = finding(own)
    content = "services: asr: read_only: false cap_add: [SYS_NICE]"
    assert (found.status, found.evidence) == ("pass", f"{own}, merged last: {content}")
    assert OWN_FILE not in {finding.code for finding in examine(load_settings({}), quick=True)}


@pytest.mark.usefixtures("compose")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"services: {asr: {read_onl: false}}", "'read_onl'"),
        (b"services:\n  asr:\n    - a: [\n", "line 4"),
        (b"", "needs to be an object"),
    ],
    ids=["missing", "binary", "unknown key", "no YAML", "empty"],
)
def test_what_cannot_be_merged_fails_before_anything_is_touched(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_bytes(content)
    found = finding(path)
    assert found.status == "fail"
    assert found.evidence.startswith(f"ASR_COMPOSE_FILE: {path} ")
    assert words in found.evidence


@pytest.mark.usefixtures("compose")
def test_every_right_at_once_is_warned_of(own: Path) -> None:
    own.write_text("services:\n  asr: {privileged: true}\n", encoding="utf-8")
    found = finding(own)
    assert (found.status, "docker/HARDENING.md" in found.fix) == ("warn", True)


def test_a_host_that_is_examined_elsewhere_tells_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    settings = load_settings({"ASR_COMPOSE_FILE": "/etc/own.yaml"})
    assert {f.code: f.status for f in examine(settings, root=tmp_path)}[OWN_FILE] == "warn"
    (tmp_path / "commands" / "own-compose-file.txt").write_text("/etc/own.yaml, merged last: services:\n")
    assert {f.code: f.status for f in examine(settings, root=tmp_path)}[OWN_FILE] == "pass"


@pytest.mark.usefixtures("compose")
def test_a_support_bundle_has_it_without_secrets(own: Path, tmp_path: Path) -> None:
    own.write_text(f"{OWN}    environment: {{MY_TOKEN: s3cr3t-8d2e}}\n", encoding="utf-8")
    settings = load_settings({"ASR_COMPOSE_FILE": str(own), "ASR_OUT_DIR": str(tmp_path / "out")})
    found = texts(unpacked(support_bundle.collect(settings, tmp_path / "bundle").path, tmp_path / "unpacked"))
    assert "cap_add: [SYS_NICE]" in found[str(own).lstrip("/")]
    assert str(own) in found["settings.env"]
    assert "merged last" in found["doctor.txt"]
    assert not any("s3cr3t" in text for text in found.values())


def test_compose_gets_it_last_and_a_server_is_stopped_without_it(
    own: Path, tmp_path: Path, fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    fake("docker", 'case "$*" in "compose version"*) echo 2 ;; esac')
    settings = load_settings({"ASR_COMPOSE_FILE": str(own), "ASR_OUT_DIR": str(tmp_path / "out"), "ASR_PORT": "8123"})
    override.write_host_file(settings)
    up.compose(settings, "ps")
    assert f"compose-8123.json -f {own} ps" in capfd.readouterr().err
    own.unlink()
    up.compose(settings, "stop")
    assert "compose-8123.json stop" in capfd.readouterr().err


@pytest.mark.usefixtures("compose")
def test_it_is_merged_behind_both_files_of_the_kit(own: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    settings = load_settings({"ASR_PROFILE": A2, "ASR_OUT_DIR": str(tmp_path / "out")})
    second = override.write_host_file(settings, root=an_a2(tmp_path / "root"))
    own.write_text(f"{OWN}    devices: [/dev/dvpp_cmdlist:/dev/dvpp_cmdlist:rw]\n    user: '7:7'\n", encoding="utf-8")
    command = [commands.OLD_COMPOSE, *commands.file_options(COMPOSE, second, own), "config"]
    merged = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    service = merged["services"]["asr"]
    assert (service["read_only"], service["user"]) == (False, "7:7")
    assert (service["cap_drop"], service["cap_add"]) == (["ALL"], ["SYS_NICE"])
    assert {"/dev/davinci0:/dev/davinci0", "/dev/dvpp_cmdlist:/dev/dvpp_cmdlist:rw"} <= set(service["devices"])


def test_the_last_word_on_new_privileges_is_the_operators() -> None:
    """In the order that compose 1.29 sorts them in: with `no-new-privileges:true` of the kit it was the kit's."""
    check_engine()
    kits = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["asr"]["security_opt"]
    both = sorted({*kits, "no-new-privileges:false"})
    for options, bound in ((kits, "1"), (both, "0")):
        words = [word for option in options for word in ("--security-opt", option)]
        status = docker("run", "--rm", "--network", "none", *words, stand_in_base(), "cat", "/proc/1/status")
        assert dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)["NoNewPrivs"] == bound


def test_both_pages_have_the_same_examples_each_as_narrow_as_it_says() -> None:
    english, chinese = EXAMPLES.values()
    assert english == chinese
    assert len(english) == 13
    rows = [re.findall(r"^\| .+ \|$", text, re.MULTILINE) for text in PAGES.values()]
    assert len(rows[0]) == len(rows[1])
    for name, text in PAGES.items():
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= {
            heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)
        }, name
    for example in english:
        (service,) = yaml.safe_load(example)["services"].values()
        assert len(service) == 1
        assert "privileged" not in service


@pytest.mark.usefixtures("compose")
def test_compose_v1_merges_every_example(tmp_path: Path) -> None:
    (tmp_path / "seccomp.json").write_text("{}")
    for number, example in enumerate(EXAMPLES["HARDENING.md"]):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example.replace("/etc/qwen3-asr/seccomp.json", str(tmp_path / "seccomp.json")))
        assert own_compose.read(load_settings({"ASR_COMPOSE_FILE": str(path)}))


def test_compose_v2_specifies_every_example(tmp_path: Path) -> None:
    paths = []
    for number, example in enumerate(EXAMPLES["HARDENING.md"]):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(yaml.safe_load(example)))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, paths)]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_no_compose_is_told(own: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake("docker", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(KitError, match="docker compose: is not installed"):
        own_compose.read(load_settings({"ASR_COMPOSE_FILE": str(own)}))
