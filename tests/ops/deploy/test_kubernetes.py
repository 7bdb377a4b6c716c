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
from cluster import BUILDS, COMPONENTS, KUBERNETES, OPERATOR, OVERLAYS, Build, folder_of, seconds, settings_of
from documents import commands, outline
from kustomize import containers, only, pod_spec, server

from env.settings import Settings
from env.sources import PREFIX, load_settings
from runtime.ops.deploy.image import image_name

# The oldest that the files are for (base/disruption.yaml says why), and the newest there is.
VERSIONS = ("1.26", kubernetes_validate.latest_version())
# kustomize 4.5 is in kubectl 1.25; older ones lack fields that are used here.
KUSTOMIZE = (4, 5)
REPLACING = (5, 1)  # components come after the settings: mirror and proxy say so


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a build."""
    return lambda name: folder_of(name, tmp_path)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """What kustomize makes of a build."""
    return lambda name: kustomize.build(folder_of(name, tmp_path))


def straight(value: Any) -> Any:
    """Lists that kustomize may order as it likes, in one order; a ConfigMap's name without its hash."""
    if isinstance(value, dict):
        return {key: straight(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return sorted((straight(entry) for entry in value), key=lambda entry: json.dumps(entry, sort_keys=True))
    return re.sub(r"^(qwen3-asr-settings(-one|-two)?)-\w{10}$", r"\1", value) if isinstance(value, str) else value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*BUILDS, *OVERLAYS])
def test_every_resource_is_what_kubernetes_expects(name: str, version: str, build: Build) -> None:
    resources = build(name)
    assert {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "PersistentVolumeClaim"} <= {
        resource["kind"] for resource in resources
    }
    for resource in resources:
        if resource["apiVersion"] == OPERATOR:
            continue  # Kubernetes has no schema of these; test_kubernetes_overlays.py looks at them
        assert version.startswith(kubernetes_validate.validate(resource, version, strict=True))


def test_a_field_that_kubernetes_does_not_know_would_be_found(build: Build) -> None:
    deployment = only(build("cpu"), "Deployment")
    pod_spec(deployment)["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", [*BUILDS, *OVERLAYS])
def test_kubectl_builds_the_same(name: str, folder: Callable[[str], Path]) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    asked = subprocess.run(["kubectl", "version", "--client", "--output", "json"], capture_output=True, check=False)
    version = str(json.loads(asked.stdout or b"{}").get("kustomizeVersion", ""))
    needed = KUSTOMIZE if name in BUILDS else REPLACING
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < needed:
        pytest.skip(f"kubectl has kustomize {version or 'of an unknown version'}, {needed} is needed")
    place = folder(name)
    command = ["kubectl", "kustomize", str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, "kubectl warns"
    printed = list(kustomize.yaml.safe_load_all(result.stdout))
    assert straight(printed) == straight(kustomize.build(place))


def test_every_file_is_used() -> None:
    tops = (KUBERNETES / name for name in ("cpu", "example", "copy-weights", "several", *COMPONENTS))
    used = {path.resolve() for top in tops for path in kustomize.sources(top)}
    there = {path for pattern in ("*.yaml", "*.env") for path in KUBERNETES.rglob(pattern)}
    assert used == {path for path in there if not path.is_relative_to(KUBERNETES / "own")}


@pytest.mark.parametrize("name", BUILDS)
def test_the_settings_are_settings(name: str, build: Build) -> None:
    data = only(build(name), "ConfigMap")["data"]
    assert all(key.startswith(PREFIX) for key in data)
    settings = load_settings(data)
    assert settings.host == "::"
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


def test_the_readmes_are_in_step_and_name_what_there_is(build: Build) -> None:
    english, chinese = ((KUBERNETES / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert outline(english) == outline(chinese)
    assert commands(english) == commands(chinese)
    for path in re.findall(r"\]\(([^)]+)\)", english + chinese):
        assert (KUBERNETES / path).is_file()
    image = image_name(settings_of(build("cpu")))
    assert f"$ kind load docker-image {image}\n" in english
    vllm = load_settings({**only(build("npu"), "ConfigMap")["data"], "ASR_STACK": "vllm"})
    assert f"`newTag: {image_name(vllm).partition(':')[2]}`" in english
    minutes = seconds(server(build("npu"))["startupProbe"]) // 60
    assert f"after {minutes} minutes it is started anew" in english
    example = build("example")
    for kind, name in re.findall(r"(deployment|service)/([\w-]+)", english):
        assert only(example, kind.capitalize())["metadata"]["name"] == name
    assert re.findall(r"pod/([\w-]+)", english) == [only(build("npu with copy-weights"), "Pod")["metadata"]["name"]]
    assert set(re.findall(r"kubectl -n (\w+)", english)) == {example[0]["metadata"]["namespace"]}
    for folder in re.findall(r"-k docker/kubernetes/(\w+)|cp -r docker/kubernetes/(\w+)", english):
        assert (KUBERNETES / "".join(folder)).is_dir() or "own" in folder
