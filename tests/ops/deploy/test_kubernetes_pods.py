"""docker/kubernetes: what pods may do, what they are given, and how they start and end."""

import re
from pathlib import Path

import kustomize
import pytest
from cluster import BUILDS, Build, folder_of, seconds, settings_of
from kustomize import containers, initial, only, pod_spec, pods, server

from env.sources import PROJECT, load_settings
from runtime.ops.deploy.override import AROUND_VLLM, DEFAULT_SHARED_MEMORY, KIT, LAST_STEPS, LAST_STEPS_OF_VLLM, user


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """What kustomize makes of a build."""
    return lambda name: kustomize.build(folder_of(name, tmp_path))


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi"), quantity
    return int(quantity.removesuffix("Gi"))


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
    assert scratch["shm"]["sizeLimit"] == f"{DEFAULT_SHARED_MEMORY}Gi"
    needed = gibibytes(asked["requests"]["memory"]) + gibibytes(scratch["shm"]["sizeLimit"])
    assert gibibytes(asked["limits"]["memory"]) >= needed


def test_a_long_start_is_waited_for_and_a_drain_is_not_cut(build: Build) -> None:
    deployment = only(build("npu"), "Deployment")
    pod, (asr,) = pod_spec(deployment), pod_spec(deployment)["containers"]
    dockerfile = (PROJECT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    settings = load_settings({})
    starts = [60 * int(minutes) for minutes in re.findall(r"--start-period=(\d+)m", dockerfile)]
    assert len(starts) == dockerfile.count("\nHEALTHCHECK ") > 0
    longest = max(*starts, settings.vllm_start_seconds + AROUND_VLLM)
    assert longest < seconds(asr["startupProbe"]) < deployment["spec"]["progressDeadlineSeconds"]
    assert (
        asr["startupProbe"]["httpGet"] == asr["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    )
    assert asr["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
    assert seconds(asr["livenessProbe"]) >= 60
    last_steps = max(LAST_STEPS, LAST_STEPS_OF_VLLM)
    assert pod["terminationGracePeriodSeconds"] == settings.drain_seconds + last_steps
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
