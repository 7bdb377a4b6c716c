"""As much of kustomize as docker/kubernetes uses, for hosts without kubectl; anything else in a file is an error.

Where kubectl is there, test_kubernetes.py compares the two.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

Resource = dict[str, Any]

# What tells the entries of a list apart, by the list's name; other lists are replaced as a whole.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name"}
MERGE_KEYS |= {"volumeMounts": "mountPath"}
POD_LISTS = ("containers", "initContainers")


def load(path: Path) -> Any:
    """A file with one YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def build(folder: Path) -> list[Resource]:
    """The resources that `kubectl kustomize folder` prints, without the hash in a ConfigMap's name."""
    return _apply(folder, [])


def sources(folder: Path) -> set[Path]:
    """Every file that a build of `folder` reads."""
    path = folder / "kustomization.yaml"
    content = load(path)
    found = {path}
    for name in [*content.get("resources", []), *content.get("components", [])]:
        target = (folder / name).resolve()
        found |= sources(target) if target.is_dir() else {target}
    found |= {folder / patch["path"] for patch in content.get("patches", []) if "path" in patch}
    return found | {folder / name for entry in content.get("configMapGenerator", []) for name in entry.get("envs", [])}


def pod_spec(resource: Resource) -> dict[str, Any]:
    """The pod's specification of a Deployment or Pod."""
    return dict(resource["spec"]["template"]["spec"] if resource["kind"] == "Deployment" else resource["spec"])


def only(resources: list[Resource], kind: str, name: str = "") -> Resource:
    """The one resource of that kind, or of that kind and name."""
    (found,) = [one for one in resources if one["kind"] == kind and (not name or one["metadata"]["name"] == name)]
    return found


def pods(resources: list[Resource]) -> list[dict[str, Any]]:
    """The specification of every pod."""
    return [pod_spec(resource) for resource in resources if resource["kind"] in ("Deployment", "Pod")]


def containers(resources: list[Resource]) -> Iterator[dict[str, Any]]:
    """Every container, initial ones too."""
    for pod in pods(resources):
        yield from pod["containers"] + pod.get("initContainers", [])


def server(resources: list[Resource]) -> dict[str, Any]:
    """The Deployment's container."""
    (found,) = pod_spec(only(resources, "Deployment"))["containers"]
    return dict(found)


def initial(resources: list[Resource]) -> dict[str, Any]:
    """The Deployment's container that runs before it."""
    (found,) = pod_spec(only(resources, "Deployment"))["initContainers"]
    return dict(found)


def _apply(folder: Path, resources: list[Resource]) -> list[Resource]:
    content = load(folder / "kustomization.yaml")
    version, kind = content.pop("apiVersion"), content.pop("kind")
    expected = {"Component": "v1alpha1", "Kustomization": "v1beta1"}
    assert version == f"kustomize.config.k8s.io/{expected[kind]}", folder
    for name in content.pop("resources", []):
        target = folder / name
        resources = resources + (build(target) if target.is_dir() else [load(target)])
    for entry in content.pop("configMapGenerator", []):
        _generate(entry, folder, resources)
    for name in content.pop("components", []):
        assert load(folder / name / "kustomization.yaml")["kind"] == "Component"
        resources = _apply(folder / name, resources)
    for patch in content.pop("patches", []):
        _patch(patch, folder, resources)
    for entry in content.pop("replacements", []):
        _replace(entry, resources)
    for entry in content.pop("labels", []):
        _label(entry, resources)
    if suffix := content.pop("nameSuffix", ""):
        _suffix(suffix, resources)
    for entry in content.pop("replicas", []):
        (found,) = [found for found in resources if _is(found, "Deployment", entry["name"])]
        found["spec"]["replicas"] = entry["count"]
    for entry in content.pop("images", []):
        _rename(entry, resources)
    if namespace := content.pop("namespace", None):
        for resource in resources:
            resource["metadata"]["namespace"] = namespace
    assert not content, f"{folder}: {', '.join(content)}"
    return resources


def _generate(entry: dict[str, Any], folder: Path, resources: list[Resource]) -> None:
    lines = list(entry.pop("literals", []))
    for name in entry.pop("envs", []):
        lines += (folder / name).read_text(encoding="utf-8").splitlines()
    data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    name, behaviour = entry.pop("name"), entry.pop("behavior", "create")
    assert not entry, f"{folder}: {', '.join(entry)}"
    there = [found for found in resources if _is(found, "ConfigMap", name)]
    assert bool(there) == (behaviour == "merge"), f"{folder}: {name} is to {behaviour}"
    for found in there:
        found["data"] |= data
    if not there:
        resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def _patch(patch: dict[str, Any], folder: Path, resources: list[Resource]) -> None:
    """A file with a part of a resource, or JSON patch's `add` to all resources of a kind."""
    if "path" in patch:
        part = load(folder / patch["path"])
        (found,) = [found for found in resources if _is(found, part["kind"], part["metadata"]["name"])]
        found |= _merge(found, part, "")
        return
    targets = [found for found in resources if found["kind"] == patch["target"]["kind"]]
    assert targets, patch
    for operation in yaml.safe_load(patch["patch"]):
        assert operation["op"] == "add"
        *parents, last = operation["path"].strip("/").split("/")
        for target in targets:
            place = target
            for key in parents:
                place = place[key]
            place[last] = operation["value"]


def _merge(base: Any, part: Any, name: str) -> Any:
    if isinstance(base, dict) and isinstance(part, dict):
        merged = {key: _merge(base[key], part[key], key) if key in base else part[key] for key in part}
        return {**base, **merged}
    if isinstance(base, list) and name in MERGE_KEYS:
        key = MERGE_KEYS[name]
        entries = {entry[key]: entry for entry in base}
        return list(
            {**entries, **{entry[key]: _merge(entries.get(entry[key], {}), entry, "") for entry in part}}.values()
        )
    return part


def _replace(entry: dict[str, Any], resources: list[Resource]) -> None:
    """The part of a value between two delimiters, put in the place of others; a number where there was one."""
    source, options = entry["source"], entry["source"]["options"]
    (found,) = [found for found in resources if _is(found, source["kind"], source["name"])]
    *parents, last = _steps(source["fieldPath"])
    value = _descend(found, parents)[last].split(options["delimiter"])[options["index"]]
    for target in entry["targets"]:
        for resource in resources:
            if _is(resource, target["select"]["kind"], target["select"]["name"]):
                for path in target["fieldPaths"]:
                    *parents, last = _steps(path)
                    place = _descend(resource, parents)
                    place[last] = type(place[last])(value)


def _steps(path: str) -> list[str | int]:
    return [int(step) if step.isdigit() else step for step in path.split(".")]


def _descend(place: Any, steps: list[str | int]) -> Any:
    for step in steps:
        place = place[step]
    return place


def _label(entry: dict[str, Any], resources: list[Resource]) -> None:
    """Labels for all resources, for pods and for what selects pods."""
    assert entry["includeSelectors"] is True
    for resource in resources:
        resource["metadata"].setdefault("labels", {}).update(entry["pairs"])
        specification = resource.get("spec", {})
        selectors = [specification[name] for name in ("selector", "podSelector") if name in specification]
        for selector in selectors if resource["kind"] != "PersistentVolumeClaim" else ():
            selector.get("matchLabels", selector).update(entry["pairs"])
        if resource["kind"] == "Deployment":
            specification["template"]["metadata"]["labels"].update(entry["pairs"])


def _suffix(suffix: str, resources: list[Resource]) -> None:
    """Other names, also where pods refer to ConfigMaps and claims of the build."""
    names = {(one["kind"], one["metadata"]["name"]) for one in resources}
    for resource in resources:
        resource["metadata"]["name"] += suffix
    references = [("ConfigMap", source["configMapRef"]) for one in containers(resources) for source in one["envFrom"]]
    for pod in pods(resources):
        claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        references += [("PersistentVolumeClaim", claim) for claim in claims]
    for kind, reference in references:
        key = "name" if kind == "ConfigMap" else "claimName"
        if (kind, reference[key]) in names:
            reference[key] += suffix


def _rename(entry: dict[str, Any], resources: list[Resource]) -> None:
    for resource in resources:
        for name in POD_LISTS if resource["kind"] in ("Deployment", "Pod") else ():
            for container in pod_spec(resource).get(name, []):
                image, _, tag = container["image"].partition(":")
                assert image == entry["name"]
                tag = entry.get("newTag", tag)
                container["image"] = entry.get("newName", image) + (f":{tag}" if tag else "")


def _is(resource: Resource, kind: str, name: str) -> bool:
    return bool(resource["kind"] == kind and resource["metadata"]["name"] == name)
