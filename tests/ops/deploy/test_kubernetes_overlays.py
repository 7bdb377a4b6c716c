"""docker/kubernetes: components beside the server, and several servers in one namespace."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kustomize
import pytest
from cluster import KUBERNETES, OPERATOR, OWN, folder_of
from documents import commands, outline
from engine import unavailable
from kustomize import Resource, only
from tree import clone_into

from runtime.ops.deploy import monitoring

RULES = monitoring.FILES / "prometheus" / "rules.yml"


def own(folder: Path, old: str = "", new: str = "") -> Path:
    """A copy with every component in use, in which a text is another."""
    place = folder_of("npu with everything", folder)
    assert old in OWN
    (place / "kustomization.yaml").write_text(OWN.replace(old, new, 1) if old else OWN, encoding="utf-8")
    return place


def selected(selector: dict[str, str], resources: list[Resource]) -> set[str]:
    """The Deployments whose pods have these labels."""
    deployments = [found for found in resources if found["kind"] == "Deployment"]
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in deployments}
    return {name for name, found in labels.items() if selector.items() <= found.items()}


def ports(resources: list[Resource], name: str) -> list[tuple[Any, str]]:
    (rule,) = only(resources, "NetworkPolicy", name)["spec"]["egress"]
    return [(port["port"], port["protocol"]) for port in rule["ports"]]


@pytest.mark.parametrize(
    "url", ["http://mirror.lan:8080/hub", "http://mirror.lan:8080", "https://10.0.0.7:8080/", "http://m:8080/a/b?c=d"]
)
def test_the_mirrors_port_is_that_of_the_settings(url: str, tmp_path: Path) -> None:
    resources = kustomize.build(own(tmp_path, "http://mirror.lan:8080/hub", url))
    assert ports(resources, "qwen3-asr-mirror") == [(8080, "TCP")]


@pytest.mark.parametrize("url", ["http://proxy.lan:3129/", "http://proxy.lan:3129", "http://10.0.0.7:3129"])
def test_the_proxys_port_is_that_of_the_settings(url: str, tmp_path: Path) -> None:
    resources = kustomize.build(own(tmp_path, "http://proxy.lan:3129/", url))
    assert ports(resources, "qwen3-asr-proxy") == [(3129, "TCP"), (53, "UDP"), (53, "TCP")]
    assert only(resources, "ConfigMap")["data"]["HTTPS_PROXY"] == url


@pytest.mark.parametrize(
    ("line", "changed", "words"),
    [
        ("ASR_HUB_ENDPOINT=http://mirror.lan:8080/hub", "ASR_HUB_ENDPOINT=http://mirror.lan/hub", "out of bounds"),
        ("HTTPS_PROXY=http://proxy.lan:3129/", "NO_PROXY=.lan", "`data.HTTPS_PROXY` is missing"),
    ],
)
def test_a_port_that_is_not_there_is_refused_not_guessed(line: str, changed: str, words: str, tmp_path: Path) -> None:
    place = own(tmp_path, line, changed)
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    result = subprocess.run(["kubectl", "kustomize", str(place)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert words in result.stderr


def test_prometheus_in_another_namespace_may_ask(tmp_path: Path) -> None:
    policy = only(kustomize.build(folder_of("npu with scrape", tmp_path)), "NetworkPolicy", "qwen3-asr-scrape")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]  # one peer with both selectors: a pod that fits both
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]


def test_the_rules_of_the_operator_are_those_of_prometheus(tmp_path: Path) -> None:
    groups = RULES.read_text(encoding="utf-8").partition("\ngroups:")
    text = (KUBERNETES / "prometheus-operator" / "rules.yaml").read_text(encoding="utf-8")
    expected = re.sub("^(?=.)", "  ", "".join(groups[1:]), flags=re.MULTILINE)
    assert text.partition("\nspec:")[2] == expected, "its head says how it is written"
    rule = only(kustomize.build(folder_of("npu with everything", tmp_path)), "PrometheusRule")
    assert rule["apiVersion"] == OPERATOR
    assert rule["spec"] == kustomize.load(RULES)


def test_the_operator_asks_each_server_once_and_calls_it_what_the_rules_do(tmp_path: Path) -> None:
    copied = own(tmp_path).parent / "several"
    file = copied / "kustomization.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "components: [../prometheus-operator]\n", encoding="utf-8")
    resources = kustomize.build(copied)
    monitor = only(resources, "ServiceMonitor")
    assert monitor["apiVersion"] == OPERATOR
    selector = monitor["spec"]["selector"]["matchLabels"]
    services = [found for found in resources if found["kind"] == "Service"]
    asked = [one for one in services if selector.items() <= one["metadata"].get("labels", {}).items()]
    assert [selected(one["spec"]["selector"], resources) for one in asked] == [{"qwen3-asr-one"}, {"qwen3-asr-two"}]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert all(endpoint["port"] in [port["name"] for port in one["spec"]["ports"]] for one in asked)
    (relabelling,) = endpoint["relabelings"]
    assert (relabelling["targetLabel"], relabelling["replacement"]) == ("job", "asr")
    interval = kustomize.load(RULES.parent / "prometheus.yml")["global"]["scrape_interval"]
    assert endpoint["interval"] == interval


def test_servers_of_one_namespace_do_not_take_each_others_pods() -> None:
    resources = kustomize.build(KUBERNETES / "several")
    names = [(found["kind"], found["metadata"]["name"]) for found in resources]
    assert len(set(names)) == len(names)
    assert {found["metadata"]["namespace"] for found in resources} == {"speech"}
    servers = {"qwen3-asr-one", "qwen3-asr-two"}
    for found in resources:
        name, specification = found["metadata"]["name"], found.get("spec", {})
        selector = specification.get("podSelector", specification.get("selector"))
        if not selector or found["kind"] == "PersistentVolumeClaim":
            continue
        expected = servers if name == "qwen3-asr" else {server for server in servers if name.endswith(server[-4:])}
        assert selected(selector.get("matchLabels", selector), resources) == expected, name
    for server in servers:
        pod = kustomize.pod_spec(only(resources, "Deployment", server))
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        assert all(("PersistentVolumeClaim", claim) in names and claim.endswith(server[-4:]) for claim in claims)
        for container in pod["containers"] + pod["initContainers"]:
            (source,) = container["envFrom"]
            assert ("ConfigMap", source["configMapRef"]["name"]) in names


@pytest.mark.parametrize("folder", ["example", "several"])
def test_what_an_operator_makes_their_own_builds_and_can_be_committed(folder: str, tmp_path: Path) -> None:
    clone = clone_into(tmp_path / "clone")
    page = KUBERNETES / "README.md" if folder == "example" else KUBERNETES / folder / "README.md"
    copy = f"cp -r docker/kubernetes/{folder} docker/kubernetes/own"
    assert copy in commands(page.read_text(encoding="utf-8"))
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    subprocess.run(copy.split(), cwd=clone, check=True)
    subprocess.run(["git", "add", "docker/kubernetes/own"], cwd=clone, check=True)
    added = subprocess.run(["git", "ls-files"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert "docker/kubernetes/own/kustomization.yaml" in added.splitlines()
    assert kustomize.build(clone / "docker" / "kubernetes" / "own") == kustomize.build(KUBERNETES / folder)


def test_both_languages_of_the_page_on_several_servers_are_in_step_and_name_what_there_is() -> None:
    english, chinese = ((KUBERNETES / "several" / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    resources = kustomize.build(KUBERNETES / "several")
    for name in re.findall(r"deployment/([\w-]+)", english):
        assert only(resources, "Deployment", name)
    for name, port in re.findall(r"http://([\w-]+):(\d+)", english):
        assert [exposed["port"] for exposed in only(resources, "Service", name)["spec"]["ports"]] == [int(port)]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_what_the_page_tells_prometheus_and_kustomize_is_valid(name: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (KUBERNETES / name).read_text(encoding="utf-8"), re.DOTALL)
    changed, scraping = blocks
    place = folder_of("npu with mirror", tmp_path)
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../npu]\n"
    (place / "kustomization.yaml").write_text(head + changed, encoding="utf-8")
    resources = kustomize.build(place)
    assert ports(resources, "qwen3-asr-mirror")[0] == (8080, "TCP")
    assert ports(resources, "qwen3-asr-proxy")[0] == (3128, "TCP")
    job = kustomize.yaml.safe_load(scraping)["scrape_configs"][0]
    (discovery,) = job.pop("kubernetes_sd_configs")  # which Debian's Prometheus was built without
    example = kustomize.build(KUBERNETES / "example")
    assert discovery["namespaces"]["names"] == [example[0]["metadata"]["namespace"]]
    assert (
        job["relabel_configs"][0]["regex"] == only(example, "Service")["metadata"]["labels"]["app.kubernetes.io/name"]
    )
    assert f'up{{job="{job["job_name"]}"}}' in RULES.read_text(encoding="utf-8")
    if not shutil.which("promtool"):
        unavailable("no Prometheus checked the page: apt-get install prometheus")
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps({"scrape_configs": [{**job, "static_configs": []}]}), encoding="utf-8")
    result = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
