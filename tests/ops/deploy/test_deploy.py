"""What the container gets of a host, and the docker commands that the kit runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosting import A2, Fake, an_a2, described, faking

from env.errors import KitError
from env.settings import Settings
from env.sources import PROJECT, load_settings
from runtime.host import docker, npu_smi
from runtime.host.probe import Host
from runtime.ops.deploy import compose as profile
from runtime.ops.deploy import image, monitoring, override
from runtime.ops.deploy.compose_project import COMPOSE


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command: a shell script that comes first on PATH."""
    return faking(tmp_path / "bin", monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An Atlas 800 A2's files."""
    return an_a2(tmp_path / "root")


def test_an_npu_host_hands_over_the_npus_that_were_asked_for(root: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    service = described(root, tmp_path, ASR_PROFILE=A2, ASR_NPUS="0-1,3")
    nodes = ["davinci0", "davinci1", "davinci3", "davinci_manager", "devmm_svm", "hisi_hdc"]
    assert service["devices"] == [f"/dev/{node}:/dev/{node}" for node in nodes]
    assert service["user"] == "0:0"
    assert service["group_add"] == [str((root / "dev" / "davinci0").stat().st_gid)]
    assert service["shm_size"] == "1g"
    assert "privileged" not in service


def test_only_what_exists_is_mounted(root: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    volumes = described(root, tmp_path, ASR_PROFILE=A2)["volumes"]
    driver = ["/usr/local/dcmi", "/usr/local/sbin/npu-smi", "/usr/local/Ascend/driver/lib64"]
    assert [volume for volume in volumes if volume.startswith("/usr")] == [f"{path}:{path}:ro" for path in driver]


def test_with_ascends_runtime_its_variable_takes_the_place_of_devices(root: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", 'echo \'{"ascend": {}, "runc": {}}\'')
    service = described(root, tmp_path, ASR_PROFILE=A2, ASR_NPUS="0-2")
    assert service["runtime"] == "ascend"
    assert service["environment"]["ASCEND_VISIBLE_DEVICES"] == "0-2"
    assert "devices" not in service


def test_an_npu_that_is_not_there_is_named(root: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    with pytest.raises(
        KitError, match=r"/dev/davinci7 not there; this host has davinci0, davinci1, davinci2, davinci3"
    ):
        described(root, tmp_path, ASR_PROFILE=A2, ASR_NPUS="3,7")


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(KitError, match="3-1"):
        npu_smi.npu_numbers("3-1")
    assert npu_smi.npu_numbers("6,0-3,2") == [0, 1, 2, 3, 6]


def test_settings_reach_the_container_and_secrets_and_host_matters_do_not(tmp_path: Path) -> None:
    service = described(
        Path("/"),
        tmp_path,
        ASR_MAX_BATCH="4",
        OMP_NUM_THREADS="2",
        ASR_HUB_TOKEN="secret-token",
        ASR_HOST="0.0.0.0",
        ASR_PORT="8123",
        ASR_UID="1234",
    )
    assert service["environment"] == {
        "ASR_PROFILE": "cpu",
        "ASR_HOST": "::",
        "ASR_PORT": "8123",
        "ASR_MODEL": "demo",
        "ASR_MAX_BATCH": "4",
        "OMP_NUM_THREADS": "2",
    }
    assert service["ports"] == ["0.0.0.0:8123:8123"]
    assert service["user"] == "1234:1234"


def test_keys_reach_the_container_and_stopping_leaves_time_to_drain(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.touch()
    service = described(Path("/"), tmp_path, ASR_KEYS_FILE=str(keys), ASR_DRAIN_SECONDS="30.5")
    assert f"{keys}:/kit/given{keys}:ro" in service["volumes"]  # alone: pytest's directories are closed to others
    assert service["environment"]["ASR_KEYS_FILE"] == f"/kit/given{keys}"
    assert service["stop_grace_period"] == "41s"


def test_vllm_is_set_up_in_the_container_by_its_own_python_and_has_longer_to_end(
    root: Path, tmp_path: Path, fake: Fake
) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    own = {"ASR_VLLM_EAGER": "false", "ASR_VLLM_URL": "http://10.0.0.7:8000", "ASR_ENGINE": "vllm", "ASR_STACK": "vllm"}
    service = described(
        root, tmp_path, ASR_PROFILE=A2, ASR_DRAIN_SECONDS="30", ASR_VLLM_PYTHON="/opt/here/bin/python", **own
    )
    assert own.items() <= service["environment"].items()
    assert "ASR_VLLM_PYTHON" not in service["environment"]  # which would be the host's
    assert service["stop_grace_period"] == "60s"
    assert service["shm_size"] == "1g"


def test_every_setting_is_handed_on_or_known_to_be_the_hosts() -> None:
    """A new setting reaches the container unless it is listed."""
    environment = {"ASR_HUB": "http", "ASR_JIT_COMPILE": "true"}
    found = override.handed_on(load_settings(environment), environment)
    assert set(Settings.model_fields) >= override.NOT_HANDED_ON
    assert "ASR_JIT_COMPILE" in found
    assert "ASR_HUB" not in found


def test_the_container_has_the_hosts_proxies_without_their_passwords_on_disk(tmp_path: Path) -> None:
    proxies = {"HTTPS_PROXY": "http://me:sesame@proxy.example:3128", "no_proxy": "localhost,.example", "http_proxy": ""}
    service = described(tmp_path, tmp_path, **proxies)
    assert service["environment"].keys() & set(image.PROXIES) == {"HTTPS_PROXY", "no_proxy"}
    assert "sesame" not in json.dumps(service)


def test_a_proxy_on_the_hosts_loopback_is_not_for_the_container(tmp_path: Path) -> None:
    proxies = {"HTTP_PROXY": "127.0.0.1:7890", "https_proxy": "socks5://localhost:7890", "NO_PROXY": "127.0.0.1"}
    service = described(tmp_path, tmp_path, **proxies)
    assert service["environment"].keys() & set(image.PROXIES) == {"NO_PROXY"}
    assert override.proxies_out_of_reach(proxies) == ["HTTP_PROXY", "https_proxy"]


def test_weights_and_their_lock_are_mounted_read_only(root: Path, tmp_path: Path, fake: Fake) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    model, lock = tmp_path / "models" / "Qwen3-ASR-1.7B", tmp_path / "weights.lock"
    model.mkdir(parents=True)
    lock.touch()
    service = described(root, tmp_path, ASR_PROFILE=A2, ASR_MODEL=str(model), ASR_WEIGHTS_LOCK=str(lock))
    assert f"{model}:/kit/weights/Qwen3-ASR-1.7B:ro" in service["volumes"]
    assert f"{lock}:/kit/weights/weights.lock:ro" in service["volumes"]
    assert service["environment"]["ASR_MODEL"] == "weights/Qwen3-ASR-1.7B"


def test_compiled_operators_are_kept_and_shared_by_the_servers_of_a_host(
    root: Path, tmp_path: Path, fake: Fake
) -> None:
    fake("docker", "echo '{\"runc\": {}}'")
    service = described(root, tmp_path, ASR_PROFILE=A2, ASR_OP_CACHE_DIR=str(tmp_path / "cache"))
    assert f"{tmp_path / 'cache'}:/kit/op-cache" in service["volumes"]
    assert service["environment"]["ASR_OP_CACHE_DIR"] == "op-cache"


def test_the_directory_that_the_container_writes_to_is_open_to_its_user(tmp_path: Path) -> None:
    settings = load_settings({"ASR_OUT_DIR": str(tmp_path), "ASR_UID": "4321", "ASR_GID": "1234"})
    path = override.write_host_file(settings)
    directory = override.server_directory(settings)
    if os.geteuid() == 0:
        assert (directory.stat().st_uid, directory.stat().st_gid) == (4321, 1234)
    else:
        assert directory.stat().st_mode & 0o7777 == 0o1777
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory not in path.parents


@pytest.fixture(params=[("cpu", ""), (A2, ""), (A2, "vllm"), (A2, "vllm alone")], ids=lambda param: " ".join(param))
def second(request: pytest.FixtureRequest, root: Path, tmp_path: Path, fake: Fake) -> Path:
    """The second compose file, for a host without and one with NPUs."""
    fake("docker", "echo '{\"runc\": {}}'")
    profile, vllm = request.param
    proxies = {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "localhost"}
    environment = {"ASR_PROFILE": profile, "ASR_OUT_DIR": str(tmp_path), **proxies}
    if vllm:
        environment |= {"ASR_STACK": "vllm", "ASR_VLLM_ALONE": str(vllm.endswith("alone"))}
    service = override.describe(load_settings(environment), root=root, environment=environment)
    path = tmp_path / "second.json"
    path.write_text(json.dumps(service), encoding="utf-8")
    return path


def test_compose_v1_accepts_both_files_together(second: Path) -> None:
    if not docker.read_output(["docker-compose", "version", "--short"]):
        pytest.skip("docker-compose is not installed")
    command = ["docker-compose", *docker.file_options(COMPOSE, second), "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_both_files_follow_the_specification_of_compose_v2(second: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*check, str(COMPOSE), str(second)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_who_watches_but_ended_is_named_with_the_last_words(fake: Fake) -> None:
    state = '[{"State": {"Status": "exited", "ExitCode": 2}, "RestartCount": 0}]'
    fake("docker", f"[ $1 = inspect ] && echo '{state}' || echo 'no space left'")
    settings = load_settings({"ASR_GRAFANA_PORT": "1", "ASR_PROMETHEUS_PORT": "1"})  # where nobody listens
    with pytest.raises(KitError, match=r"(?s)grafana: does not answer; .*no space left"):
        monitoring.await_answers(settings, lambda service: f"the-{service}")


def test_a_registry_out_of_reach_leads_to_mirrors(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake("docker", "exit 1")
    with pytest.raises(KitError, match="ASR_PROMETHEUS_IMAGE and ASR_GRAFANA_IMAGE name a mirror's copies"):
        monitoring.prepare(load_settings({"ASR_PROMETHEUS_IMAGE": "mirror.example/prometheus:v3"}))
    assert "docker pull mirror.example/prometheus:v3" in capfd.readouterr().err


def a_host(root: Path, npu_smi: str) -> Host:
    """An examined host that recorded what npu-smi said."""
    record = root / "commands" / "npu-smi-info.txt"
    record.parent.mkdir(parents=True)
    record.write_text(npu_smi, encoding="utf-8")
    return Host(root)


def test_a_host_without_npus_gets_the_demo_model(tmp_path: Path) -> None:
    assert profile.detect(Host(tmp_path)) == "cpu"


def test_a_host_gets_the_profile_that_fits_its_npus(root: Path, reference: Path) -> None:
    sample = (reference / "npu-smi" / "910B4-x1-25.5.2.txt").read_text(encoding="utf-8")
    assert profile.detect(a_host(root, sample)) == A2


def test_npus_that_no_profile_fits_ask_for_one(root: Path, reference: Path) -> None:
    sample = (reference / "npu-smi" / "910B4-x1-25.5.2.txt").read_text(encoding="utf-8").replace("910B4", "510X1")
    with pytest.raises(KitError, match="chips: 510X1 → set it to: atlas-300i-duo, atlas-800-a2, atlas-800-a3"):
        profile.detect(a_host(root, sample))


def test_no_docker_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="docker: is not installed"):
        docker.check_engine()


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "usermod -aG docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl start docker"),
    ],
)
def test_an_engine_that_cannot_be_reached_is_told(words: str, advice: str, fake: Fake) -> None:
    fake("docker", f"echo '{words}' >&2; exit 1")
    with pytest.raises(KitError, match=advice):
        docker.check_engine()


def test_compose_v2_is_used_where_it_is_installed(fake: Fake) -> None:
    fake("docker", '[ "$1 $2" = "compose version" ] && echo 2.29.1')
    assert docker.compose_command() == ("docker", "compose")


def test_compose_v1_is_used_where_there_is_no_other(fake: Fake) -> None:
    fake("docker", "exit 1")
    fake("docker-compose", "echo 1.29.2")
    assert docker.compose_command() == ("docker-compose",)


def test_no_compose_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake("docker", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(KitError, match="docker-compose-plugin"):
        docker.compose_command()


def test_what_is_run_is_shown_first(capfd: pytest.CaptureFixture[str]) -> None:
    docker.run(["echo", "two words", str(PROJECT / "docker" / "compose.yaml")])
    shown = capfd.readouterr()
    assert shown.err.strip() == "$ echo 'two words' docker/compose.yaml"
    assert "two words" in shown.out


def test_a_command_that_fails_is_told() -> None:
    with pytest.raises(KitError, match="exit code 3"):
        docker.run(["sh", "-c", "exit 3"])
