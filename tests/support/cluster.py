"""The builds of docker/kubernetes, as tests make them."""

import shutil
from collections.abc import Callable
from pathlib import Path

from kustomize import Resource, only

from env.settings import Settings
from env.sources import PROJECT, load_settings

KUBERNETES = PROJECT / "docker" / "kubernetes"
BUILDS = ("npu", "cpu", "npu with fetch-weights", "npu with copy-weights", "example")
# Builds that have several of a kind, with what own/kustomization.yaml is then.
COMPONENTS = ("mirror", "proxy", "prometheus-operator")
OVERLAYS = ("several", "npu with everything")
OPERATOR = "monitoring.coreos.com/v1"
OWN = """apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: speech
resources: [../npu]
components: [../fetch-weights, ../mirror, ../proxy, ../prometheus-operator]
configMapGenerator:
  - name: qwen3-asr-settings
    behavior: merge
    literals:
      - ASR_HUB_ENDPOINT=http://mirror.lan:8080/hub
      - HTTPS_PROXY=http://proxy.lan:3129/
"""
Build = Callable[[str], list[Resource]]


def folder_of(name: str, scratch: Path) -> Path:
    """The folder of a build; those with a component are made as an operator would, beside a copy of the others in
    `scratch`."""
    base, _, component = name.partition(" with ")
    if not component:
        return KUBERNETES / base
    copied: Path = shutil.copytree(KUBERNETES, scratch / "kubernetes", dirs_exist_ok=True)
    own = copied / "own"
    own.mkdir(exist_ok=True)
    text = (
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [../{base}]\ncomponents: [../{component}]\n"
    )
    (own / "kustomization.yaml").write_text(OWN if component == "everything" else text, encoding="utf-8")
    return own


def settings_of(resources: list[Resource]) -> Settings:
    """What the server of a build is told."""
    return load_settings(only(resources, "ConfigMap")["data"])


def seconds(probe: dict[str, int]) -> int:
    """How long a probe may fail."""
    return probe["periodSeconds"] * probe["failureThreshold"]
