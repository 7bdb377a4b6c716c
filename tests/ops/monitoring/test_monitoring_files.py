"""What Prometheus and Grafana are given: the dashboard, their files, their containers."""

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from kustomize import load
from reference import read_json

from env.errors import KitError
from env.settings import Settings
from env.sources import load_settings
from runtime.host import docker
from runtime.ops.deploy import monitoring, override
from runtime.ops.deploy.compose_project import COMPOSE

DASHBOARD = monitoring.FILES / "grafana" / "dashboards" / "qwen3-asr.json"
# Of Grafana's list of units, packages/grafana-data/src/valueFormats/categories.ts.
UNITS = {"bytes", "celsius", "dtdurations", "mbytes", "percent", "reqps", "s", "short", "watt"}
COLUMNS = 24


@pytest.fixture
def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = read_json(DASHBOARD)
    return found


@pytest.fixture
def watched(tmp_path: Path) -> Settings:
    """A server that shall be watched."""
    return load_settings({"ASR_MONITORING": "1", "ASR_OUT_DIR": str(tmp_path), "ASR_PORT": "8123"})


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """As hardened hosts have it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def area(panel: dict[str, Any]) -> set[tuple[int, int]]:
    """The cells of the dashboard's grid that a panel takes."""
    place = panel["gridPos"]
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return {(column, row) for column in columns for row in rows}


def test_the_dashboards_panels_have_what_grafana_wants(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert (dashboard["uid"], dashboard.get("id")) == ("qwen3-asr", None)
    assert len({panel["id"] for panel in panels}) == len(panels)
    (variable,) = dashboard["templating"]["list"]
    source = {"type": variable["query"], "uid": f"${{{variable['name']}}}"}
    for panel in panels:
        assert re.search("[一-鿿]", panel["title"])
        if panel["type"] != "row":
            assert panel["type"] in ("stat", "timeseries")
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
            assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_covers_another(dashboard: dict[str, Any]) -> None:
    areas = [area(panel) for panel in dashboard["panels"]]
    assert all(column < COLUMNS for cells in areas for column, _ in cells)
    assert not any(one & other for one, other in combinations(areas, 2))


def test_grafana_finds_the_dashboard_and_prometheus(watched: Settings) -> None:
    service = load(COMPOSE)["services"]["grafana"]
    mounts = monitoring.describe(watched)["services"]["grafana"]["volumes"]
    pairs = [volume.removesuffix(":ro").split(":") for volume in mounts if volume.endswith(":ro")]
    folder = monitoring.directory(watched)
    inside = {target: monitoring.FILES / Path(source).relative_to(folder) for source, target in pairs}
    (provider,) = load(inside["/etc/grafana/provisioning/dashboards"] / "provider.yaml")["providers"]
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert inside[provider["options"]["path"]] == inside[str(home.parent)] == DASHBOARD.parent
    assert home.name == DASHBOARD.name
    (source,) = load(inside["/etc/grafana/provisioning/datasources"] / "prometheus.yaml")["datasources"]
    interval = load(monitoring.FILES / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert source["jsonData"]["timeInterval"] == interval


@pytest.mark.usefixtures("strict_umask")
def test_what_is_written_can_be_read_by_the_containers_users(watched: Settings) -> None:
    monitoring.write(watched)
    monitoring.write(watched)
    folder = monitoring.directory(watched)
    written = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    targets = {Path("prometheus", "targets", f"{job}.json") for job in ("alertmanager", "asr", "npu")}
    assert written == {*monitoring.texts(), *targets}
    assert {path.parts[0] for path in written} == {"grafana", "prometheus"}  # what is for people stays where it is
    for path in written:
        assert (folder / path).stat().st_mode & 0o777 == 0o644
        assert (folder / path).parent.stat().st_mode & 0o777 == 0o755


def test_prometheus_asks_the_server_as_it_answers_and_the_exporter_where_there_are_npus(tmp_path: Path) -> None:
    plain = monitoring.targets(load_settings({"ASR_PORT": "8123"}))
    server = {"targets": ["asr:8123"], "labels": {"__scheme__": "http"}}
    assert plain == {"alertmanager": [], "asr": [server], "npu": []}
    told = monitoring.targets(load_settings({"ASR_ALERTMANAGER": "172.17.0.1:9093"}))
    assert told["alertmanager"] == [{"targets": ["172.17.0.1:9093"]}]
    certified = {"ASR_PROFILE": "atlas-800-a2", "ASR_TLS_CERT_FILE": str(tmp_path / "tls.crt")}
    certified["ASR_TLS_KEY_FILE"] = str(tmp_path / "tls.key")
    found = monitoring.targets(load_settings(certified))
    assert found["asr"][0]["labels"] == {"__scheme__": "https"}
    assert found["npu"] == [{"targets": ["172.17.0.1:8082"]}]


def test_who_is_watched_stays_so_until_it_ends(watched: Settings) -> None:
    unasked = watched.model_copy(update={"monitoring": False})
    assert monitoring.wanted(watched)
    assert not monitoring.wanted(unasked)
    monitoring.write(watched)
    assert monitoring.wanted(unasked)
    monitoring.remove(unasked)
    assert not monitoring.wanted(unasked)


def test_what_cannot_be_written_is_named(watched: Settings, tmp_path: Path) -> None:
    (tmp_path / "monitoring-8123").touch()
    with pytest.raises(KitError, match="monitoring-8123"):
        monitoring.write(watched)


def test_nobody_but_this_host_reaches_them_and_they_may_do_nothing(watched: Settings, tmp_path: Path) -> None:
    if not docker.read_output(["docker-compose", "version", "--short"]):
        pytest.skip("docker-compose is not installed")
    opened = watched.model_copy(update={"host": "0.0.0.0"})
    command = [
        "docker-compose",
        *docker.file_options(COMPOSE, override.write_host_file(opened)),
        "--profile",
        monitoring.PROFILE,
    ]
    result = subprocess.run([*command, "config"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    merged = tmp_path / "merged.yaml"
    merged.write_text(result.stdout, encoding="utf-8")
    services = load(merged)["services"]
    assert services["asr"]["ports"] == ["0.0.0.0:8123:8123/tcp"]
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090/tcp"]
    assert services["grafana"]["ports"] == ["127.0.0.1:3000:3000/tcp"]
    for service in services.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges"]
