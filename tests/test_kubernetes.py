"""docker/kubernetes: what a cluster would be told, built and checked without one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import kustomize
import pytest
from conftest import PROJECT
from kustomize import Resource, containers, initial, only, pod_spec, pods, server
from test_readme import commands, outline

from env.loading import PREFIX, load_settings
from env.settings import Settings
from runtime.ops.lifecycle.host import DEFAULT_SHARED_MEMORY, KIT, LAST_STEPS, user
from runtime.ops.lifecycle.image import image_name

KUBERNETES = PROJECT / "docker" / "kubernetes"
BUILDS = ("npu", "cpu", "npu with fetch-weights", "npu with copy-weights", "example")
# The oldest that the files are for (base/disruption.yaml says why), and the newest there is.
VERSIONS = ("1.26", kubernetes_validate.latest_version())
# kustomize 4.5 is in kubectl 1.25; older ones lack fields that are used here.
KUSTOMIZE = (4, 5)

Build = Callable[[str], list[Resource]]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a build; those with a component are made as an operator would, beside a copy of the others."""

    def make(name: str) -> Path:
        base, _, component = name.partition(" with ")
        if not component:
            return KUBERNETES / base
        own = shutil.copytree(KUBERNETES, tmp_path / "kubernetes", dirs_exist_ok=True) / "own"
        own.mkdir(exist_ok=True)
        (own / "kustomization.yaml").write_text(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            f"resources: [../{base}]\ncomponents: [../{component}]\n",
            encoding="utf-8",
        )
        return own

    return make


@pytest.fixture
def build(folder: Callable[[str], Path]) -> Build:
    return lambda name: kustomize.build(folder(name))


def settings_of(resources: list[Resource]) -> Settings:
    return load_settings(only(resources, "ConfigMap")["data"])


def seconds(probe: dict[str, int]) -> int:
    return probe["periodSeconds"] * probe["failureThreshold"]


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi"), quantity
    return int(quantity.removesuffix("Gi"))


def straight(value: Any) -> Any:
    """Lists that kustomize may order as it likes, in one order; a ConfigMap's name without its hash."""
    if isinstance(value, dict):
        return {key: straight(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return sorted((straight(entry) for entry in value), key=lambda entry: json.dumps(entry, sort_keys=True))
    return re.sub(r"^(qwen3-asr-settings)-\w{10}$", r"\1", value) if isinstance(value, str) else value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BUILDS)
def test_every_resource_is_what_kubernetes_expects(name: str, version: str, build: Build) -> None:
    resources = build(name)
    assert {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "PersistentVolumeClaim"} <= {
        resource["kind"] for resource in resources
    }
    for resource in resources:
        assert version.startswith(kubernetes_validate.validate(resource, version, strict=True))


def test_a_field_that_kubernetes_does_not_know_would_be_found(build: Build) -> None:
    deployment = only(build("cpu"), "Deployment")
    pod_spec(deployment)["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", BUILDS)
def test_kubectl_builds_the_same(name: str, folder: Callable[[str], Path]) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    asked = subprocess.run(["kubectl", "version", "--client", "--output", "json"], capture_output=True, check=False)
    version = str(json.loads(asked.stdout or b"{}").get("kustomizeVersion", ""))
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < KUSTOMIZE:
        pytest.skip(f"kubectl has kustomize {version or 'of an unknown version'}, 4.5 is needed")
    place = folder(name)
    command = ["kubectl", "kustomize", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, "kubectl warns"
    printed = list(kustomize.yaml.safe_load_all(result.stdout))
    assert straight(printed) == straight(kustomize.build(place))


def test_every_file_is_used() -> None:
    tops = (KUBERNETES / name for name in ("cpu", "example", "copy-weights"))
    used = {path.resolve() for top in tops for path in kustomize.sources(top)}
    there = {path for pattern in ("*.yaml", "*.env") for path in KUBERNETES.rglob(pattern)}
    assert used == {path for path in there if not path.is_relative_to(KUBERNETES / "own")}


@pytest.mark.parametrize("name", BUILDS)
def test_the_settings_are_settings(name: str, build: Build) -> None:
    data = only(build(name), "ConfigMap")["data"]
    assert all(key.startswith(PREFIX) for key in data)
    settings = load_settings(data)
    assert settings.host == "0.0.0.0"
    assert settings.hub_token is None


@pytest.mark.parametrize("name", ["npu", "cpu"])
def test_one_port_everywhere(name: str, build: Build) -> None:
    resources = build(name)
    port = settings_of(resources).port
    assert port == Settings.model_fields["port"].default
    assert server(resources)["ports"] == [{"name": "http", "containerPort": port}]
    (exposed,) = only(resources, "Service")["spec"]["ports"]
    assert (exposed["port"], exposed["targetPort"]) == (port, "http")
    (rule,) = only(resources, "NetworkPolicy", "qwen3-asr")["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]


@pytest.mark.parametrize("name", ["npu", "cpu", "npu with copy-weights"])
def test_the_image_is_the_one_that_the_kit_builds(name: str, build: Build) -> None:
    resources = build(name)
    assert {container["image"] for container in containers(resources)} == {image_name(settings_of(resources))}


def test_the_example_names_a_registry_and_keeps_the_tag(build: Build) -> None:
    resources = build("example")
    tag = image_name(settings_of(resources)).partition(":")[2]
    (image,) = {container["image"] for container in containers(resources)}
    assert re.fullmatch(rf"registry\.example\.com/\S+/qwen3-asr-ascend:{re.escape(tag)}", image)
    assert {resource["metadata"]["namespace"] for resource in resources} == {"speech"}


@pytest.mark.parametrize("name", ["npu", "cpu"])
def test_no_namespace_is_chosen_for_the_operator(name: str, build: Build) -> None:
    assert not any("namespace" in resource["metadata"] for resource in build(name))


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_has_more_rights_than_it_needs(name: str, build: Build) -> None:
    for pod in pods(build(name)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod["volumes"])
    for container in containers(build(name)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == container["resources"].keys()


@pytest.mark.parametrize("name", ["npu", "cpu"])
def test_the_user_is_the_kits(name: str, build: Build) -> None:
    resources = build(name)
    context = pod_spec(only(resources, "Deployment"))["securityContext"]
    uid, gid = user(settings_of(resources))
    assert (context["runAsUser"], context["runAsGroup"]) == (uid, gid)
    assert context.get("runAsNonRoot", False) == (uid != 0)
    # What gives access to the volume, and to the device nodes.
    assert context.get("fsGroup") == (gid or None)
    assert bool(context.get("supplementalGroups")) == (name == "npu")


@pytest.mark.parametrize("name", ["npu", "cpu"])
def test_what_is_written_is_on_a_volume_and_what_is_read_is_not_writable(name: str, build: Build) -> None:
    resources = build(name)
    settings = settings_of(resources)
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in server(resources)["volumeMounts"]}
    for path in filter(None, (settings.out_dir, settings.op_cache_dir)):
        assert (KIT / path).is_relative_to(KIT / "out")
    assert mounts[str(KIT / "out")] is mounts["/tmp"] is False
    if settings.model != "demo":
        assert (KIT / settings.model).is_relative_to(KIT / "weights")
        assert (KIT / settings.weights_lock).is_relative_to(KIT / "weights")
        assert mounts[str(KIT / "weights")] is True
    claims = {found["metadata"]["name"] for found in resources if found["kind"] == "PersistentVolumeClaim"}
    volumes = pod_spec(only(resources, "Deployment"))["volumes"]
    wanted = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    assert wanted == claims


def test_an_npu_is_asked_for_where_the_model_runs_and_nowhere_else(build: Build) -> None:
    for name in BUILDS:
        resources = build(name)
        resource = "huawei.com/Ascend910"
        for container in containers(resources):
            counts = {container["resources"][side].get(resource) for side in ("requests", "limits")}
            runs = container["name"] == "asr" and settings_of(resources).device == "npu"
            assert counts == ({1} if runs else {None})
            environment = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
            assert environment.get("ASCEND_VISIBLE_DEVICES") == (None if container["name"] == "asr" else "void")


@pytest.mark.parametrize("name", ["npu", "cpu"])
def test_the_resources_hold_what_the_settings_use(name: str, build: Build) -> None:
    resources = build(name)
    asked = server(resources)["resources"]
    assert int(asked["requests"]["cpu"]) >= (settings_of(resources).omp_num_threads or 1)
    assert "cpu" not in asked["limits"]
    scratch = {v["name"]: v["emptyDir"] for v in pod_spec(only(resources, "Deployment"))["volumes"] if "emptyDir" in v}
    assert scratch["shm"]["medium"] == "Memory"
    assert scratch["shm"]["sizeLimit"] == DEFAULT_SHARED_MEMORY.replace("g", "Gi")
    needed = gibibytes(asked["requests"]["memory"]) + gibibytes(scratch["shm"]["sizeLimit"])
    assert gibibytes(asked["limits"]["memory"]) >= needed


def test_a_long_start_is_waited_for_and_a_drain_is_not_cut(build: Build) -> None:
    deployment = only(build("npu"), "Deployment")
    pod, (asr,) = pod_spec(deployment), pod_spec(deployment)["containers"]
    dockerfile = (PROJECT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    start = re.search(r"--start-period=(\d+)m", dockerfile)
    assert start
    assert int(start[1]) * 60 < seconds(asr["startupProbe"]) < deployment["spec"]["progressDeadlineSeconds"]
    assert (
        asr["startupProbe"]["httpGet"] == asr["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    )
    assert asr["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
    assert seconds(asr["livenessProbe"]) >= 60
    assert pod["terminationGracePeriodSeconds"] == load_settings({}).drain_seconds + LAST_STEPS
    assert "lifecycle" not in asr


def test_one_npu_is_handed_over_not_shared(build: Build) -> None:
    specification = only(build("npu"), "Deployment")["spec"]
    assert (specification["replicas"], specification["strategy"]) == (1, {"type": "Recreate"})
    assert only(build("npu with copy-weights"), "Deployment")["spec"]["replicas"] == 0


def test_a_node_can_be_drained(build: Build) -> None:
    specification = only(build("npu"), "PodDisruptionBudget")["spec"]
    assert specification["maxUnavailable"] == 1
    assert specification["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert "minAvailable" not in specification


@pytest.mark.parametrize("name", BUILDS)
def test_whoever_selects_pods_selects_the_servers(name: str, build: Build) -> None:
    resources = build(name)
    deployment = only(resources, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"], only(resources, "Service")["spec"]["selector"]]
    selectors.append(only(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    policies = [found["spec"] for found in resources if found["kind"] == "NetworkPolicy"]
    selectors += [policy["podSelector"]["matchLabels"] for policy in policies]
    assert all(selector.items() <= labels.items() for selector in selectors)
    copying = [found["metadata"]["labels"] for found in resources if found["kind"] == "Pod"]
    assert not any(selector.items() <= other.items() for selector in selectors for other in copying)


def test_only_fetching_reaches_out(build: Build) -> None:
    for name in ("npu", "cpu", "npu with copy-weights"):
        policy = only(build(name), "NetworkPolicy")["spec"]
        assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
        assert policy["ingress"][0]["from"] == [{"podSelector": {}}]
    policy = only(build("npu with fetch-weights"), "NetworkPolicy", "qwen3-asr-fetch-weights")["spec"]
    (rule,) = policy["egress"]
    assert [(port["port"], port["protocol"]) for port in rule["ports"]] == [(53, "UDP"), (53, "TCP"), (443, "TCP")]
    assert policy["policyTypes"] == ["Egress"]


def test_weights_are_verified_before_the_server_or_fetched(build: Build) -> None:
    weights = str(KIT / "weights")
    for name, task, writable in (("npu", "verify-weights", False), ("example", "fetch-weights", True)):
        first = initial(build(name))
        assert first["args"] == ["invoke", task]
        (mount,) = [mount for mount in first["volumeMounts"] if mount["mountPath"] == weights]
        assert mount["readOnly"] is not writable
        # What it said last is what `kubectl describe pod` shows of a pod that is started again and again.
        assert first["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert "initContainers" not in pod_spec(only(build("cpu"), "Deployment"))
    assert server(build("npu"))["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert not {"command", "args"} & server(build("npu")).keys()


def test_the_token_is_a_secret_and_only_of_what_fetches(build: Build) -> None:
    for name in BUILDS:
        for container in containers(build(name)):
            tokens = [entry for entry in container.get("env", []) if "TOKEN" in entry["name"]]
            if container.get("args") != ["invoke", "fetch-weights"]:
                assert not tokens
                continue
            (token,) = tokens
            assert token["name"] == "ASR_HUB_TOKEN"
            assert token["valueFrom"]["secretKeyRef"]["optional"] is True
            assert "value" not in token


def test_the_readmes_are_in_step_and_name_what_there_is(build: Build) -> None:
    english, chinese = ((KUBERNETES / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    for path in re.findall(r"\]\(([^)]+)\)", english + chinese):
        assert (KUBERNETES / path).is_file()
    image = image_name(settings_of(build("cpu")))
    assert f"$ kind load docker-image {image}\n" in english
    example = build("example")
    for kind, name in re.findall(r"(deployment|service)/([\w-]+)", english):
        assert only(example, kind.capitalize())["metadata"]["name"] == name
    assert re.findall(r"pod/([\w-]+)", english) == [only(build("npu with copy-weights"), "Pod")["metadata"]["name"]]
    assert set(re.findall(r"kubectl -n (\w+)", english)) == {example[0]["metadata"]["namespace"]}
    for folder in re.findall(r"-k docker/kubernetes/(\w+)|cp -r docker/kubernetes/(\w+)", english):
        assert (KUBERNETES / "".join(folder)).is_dir() or "own" in folder
