"""What can be amiss with a host, and what the doctor must find."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fake_hosts
from fake_hosts import answer, fault, nodes, take_away, write

Damage = Callable[[Path], None]


def says(name: str, text: str) -> Damage:
    """A command answers otherwise."""
    return lambda root: answer(root, name, text)


def fails(name: str, why: str, text: str = "") -> Damage:
    """A command fails."""
    return lambda root: fault(root, name, why, text)


def has(path: str, text: str = "x\n") -> Damage:
    """A file is there, or another."""
    return lambda root: write(root, path, text)


def lacks(path: str) -> Damage:
    """A path is not there."""
    return lambda root: take_away(root, path)


def has_empty(path: str) -> Damage:
    """Docker made a directory of a mount's source that was not there."""

    def damage(root: Path) -> None:
        take_away(root, path)
        (root / path.lstrip("/")).mkdir()

    return damage


def has_nodes(*names: str, mode: str = "660") -> Damage:
    """These device nodes are there, and no others."""
    return lambda root: nodes(root, list(names), mode=mode)


def npu_smi(*changes: tuple[str, str], sample: str = "910B4-x8-25.5.1.txt") -> Damage:
    """npu-smi reports something else."""
    text = (fake_hosts.SAMPLES / sample).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return says("npu-smi-info", text)


DRIVER = "/usr/local/Ascend/driver/version.info"
INSTALLED = "/etc/ascend_install.info"
FIRMWARE = "/usr/local/Ascend/firmware/version.info"
FULL = "Filesystem\n/dev/sdb 100 90 1048576 90% /data\n"
NO_WEIGHTS = says("weights", fake_hosts.weights("weights/Qwen3-ASR-1.7B: no such directory", size=0))
CHIP = "| 0     910B4               | OK      "
CHIP_6 = "| 6     910B4               | OK      "
HBM = ("2811 / 32768", "31811/ 32768")
IDLE = "No running processes found in NPU 0                                                            |"
BUSY = "0       0                 | 4711          | python3                  | 28970                   |"
IN_CONTAINER = has("/proc/4711/cgroup", f"0::/system.slice/docker-{fake_hosts.CONTAINER}.scope\n")


@dataclass(frozen=True)
class Ailment:
    """What is wrong with an Atlas 800 A2, which check tells it, and what words."""

    check: str
    status: str
    damage: tuple[Damage, ...]
    evidence: str
    fix: str = ""


AILMENTS = {
    "architecture": Ailment("Architecture", "fail", (says("uname", "Linux 6.1 riscv64\n"),), "riscv64"),
    "little memory": Ailment(
        *("Memory", "warn"),
        (has("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 2000000 kB\n"),),
        *("1.9 of 7.6 GiB available, 8 wanted", "ps -eo"),
    ),
    "full disk for weights": Ailment(
        *("Disk", "fail"), (says("disk-weights", FULL), NO_WEIGHTS), *("weights: 1.0 GiB free, 4.4 wanted", "ASR_MODEL")
    ),
    "full disk for an image": Ailment(
        *("Disk", "warn"),
        (says("disk-image", FULL), fails("image", "exit code 1: No such image")),
        *("image: 1.0 GiB free, 25.0 wanted", "docker system df"),
    ),
    "disk that hangs": Ailment(
        "Disk", "warn", (fails("disk-out", "no answer within 20 s"),), "out: no answer within 20 s", "ASR_OUT_DIR"
    ),
    "port": Ailment("Port", "fail", (says("port", "pid 9 (nginx)"),), "8000: taken by pid 9 (nginx)", "ASR_PORT"),
    "port of a container": Ailment(
        *("Port", "fail"),
        (says("docker-ps", fake_hosts.container("web", ports="0.0.0.0:8000->80/tcp", ours=False)),),
        *("container web has it", "ASR_PORT"),
    ),
    "published, without a key": Ailment(
        *("Access", "warn"),
        (says("docker-ps", fake_hosts.container("asr", ports="0.0.0.0:8000->8000/tcp, :::8000->8000/tcp")),),
        *("container asr publishes 0.0.0.0, container asr publishes ::; no key is set", "set ASR_API_KEY"),
    ),
    "no docker": Ailment("Docker", "fail", (fails("docker-info", "not found"),), "not installed", "docker.io"),
    "engine down": Ailment(
        *("Docker", "fail"),
        (fails("docker-info", "exit code 1: Cannot connect to the Docker daemon"),),
        *("Cannot connect", "sudo systemctl start docker"),
    ),
    "engine closed": Ailment(
        *("Docker", "fail"),
        (fails("docker-info", "exit code 1: permission denied while trying to connect"),),
        *("permission denied", "usermod -aG docker"),
    ),
    "old compose": Ailment(
        *("Compose", "fail"),
        (fails("compose-v2", "exit code 125"), says("compose-v1", "1.25.0\n")),
        *("docker-compose 1.25.0 is older than 1.29", "docker-compose"),
    ),
    "no compose": Ailment(
        *("Compose", "fail"),
        (fails("compose-v2", "exit code 125"), fails("compose-v1", "not found")),
        *("neither", "docker-compose-plugin"),
    ),
    "runtime not loaded": Ailment(
        *("Ascend's runtime", "warn"),
        (has("/etc/docker/daemon.json", '{"runtimes": {"ascend": {"path": "/opt/runtime"}}}'),),
        *("not known to the engine", "sudo systemctl restart docker"),
    ),
    "runtime gone": Ailment(
        *("Ascend's runtime", "fail"),
        (says("docker-info", fake_hosts.info(Runtimes={"ascend": {"path": "/opt/runtime"}})),),
        *("/opt/runtime is not there", "daemon.json"),
    ),
    "no NPU": Ailment(
        *("NPU", "fail"),
        (lacks("/commands/paths.txt"), fails("npu-smi-info", "not found")),
        *("no /dev/davinciN, npu-smi: is not on PATH", "ASR_PROFILE=cpu"),
    ),
    "another kind of NPU": Ailment(
        *("NPU", "fail"),
        (npu_smi(sample="310P3-duo-x2-23.0.6.txt"),),
        *("4 × 310P3, but profile atlas-800-a2 is for another kind", "export ASR_PROFILE=atlas-300i-duo"),
    ),
    "an NPU without a profile": Ailment(
        "NPU", "warn", (npu_smi(sample="950PR-x2-25.7.rc1.txt"),), "2 × Ascend950PR: no profile is for it"
    ),
    "no driver": Ailment("Driver", "fail", (lacks(DRIVER),), DRIVER, "install the driver"),
    "half a driver": Ailment(
        *("Driver", "warn"), (has(INSTALLED, "Driver_Install_Status=failed\n"),), *("does not call complete", "again")
    ),
    "other firmware": Ailment(
        *("Firmware", "fail"),
        (has(FIRMWARE, "Version=6.3.2.1.220\n"),),
        *("6.3.2.1.220; the driver accepts [6.4.0,6.4.99]", "same HDK"),
    ),
    "no firmware": Ailment("Firmware", "warn", (lacks(FIRMWARE),), f"{FIRMWARE} is not there", "install"),
    "old driver": Ailment(
        *("Driver and CANN", "fail"),
        (has(DRIVER, "Version=24.1.rc3\n"),),
        *("driver 24.1.rc3, CANN 8.5.1", "25.0.X, 25.2.X, 25.3.X, 25.5.X"),
    ),
    "newer driver": Ailment(
        *("Driver and CANN", "warn"),
        (has(DRIVER, "Version=26.0.rc1\n"),),
        *("driver 26.0.rc1, CANN 8.5.1, whose release notes list", "25.5.X"),
    ),
    "missing node": Ailment(
        *("Device nodes", "fail"),
        (has_nodes("davinci1", *fake_hosts.MANAGERS),),
        *("/dev/davinci0 missing; there is davinci1", "ASR_NPUS"),
    ),
    "missing manager": Ailment(
        *("Device nodes", "fail"),
        (has_nodes("davinci0", "davinci_manager", "hisi_hdc"),),
        "/dev/devmm_svm missing",
    ),
    "closed nodes": Ailment(
        *("Device nodes", "fail"),
        (has_nodes("davinci0", *fake_hosts.MANAGERS, mode="640"),),
        *("closed to user 0 with groups 0, 1000: /dev/davinci0", "export ASR_UID=1000"),
    ),
    "empty directory instead of npu-smi": Ailment(
        *("npu-smi", "fail"),
        (has_empty("/usr/local/bin/npu-smi"),),
        *("/usr/local/bin/npu-smi: empty directory, as Docker makes", "sudo rmdir /usr/local/bin/npu-smi"),
    ),
    "empty directory instead of a mount": Ailment(
        *("Mounts", "fail"),
        (has_empty("/usr/local/dcmi"),),
        *("/usr/local/dcmi: empty directory", "sudo rmdir /usr/local/dcmi"),
    ),
    "missing mount": Ailment("Mounts", "warn", (lacks("/usr/local/dcmi"),), "missing: /usr/local/dcmi"),
    "npu-smi missing": Ailment(
        *("npu-smi", "fail"),
        (lacks("/usr/local/bin/npu-smi"), fails("npu-smi-info", "not found")),
        *("is not on PATH, nor /usr/local/bin/npu-smi", "install the NPU driver"),
    ),
    "npu-smi hangs": Ailment(
        "npu-smi", "fail", (fails("npu-smi-info", "no answer within 20 s"),), "no answer within 20 s", "type it"
    ),
    "driver does not answer": Ailment(
        *("npu-smi", "fail"),
        (fails("npu-smi-info", "exit code 251", "dcmi module initialize failed. ret is -8005\n"),),
        *("the driver does not answer", "reboot"),
    ),
    "held by another container": Ailment(
        *("npu-smi", "fail"),
        (says("npu-smi-info", "dcmi model initialized failed, because the device is used. ret is -8020\n"),),
        *("another container holds the NPU", "docker ps"),
    ),
    "npu-smi talks nonsense": Ailment("npu-smi", "fail", (says("npu-smi-info", "hm\n"),), "'hm'", "type it"),
    "npu-smi warns": Ailment(
        *("npu-smi", "warn"),
        (npu_smi(("\n| NPU   Name", "\n[WARNING]The driver package may not be complete\n| NPU   Name")),),
        *("[WARNING]The driver package", "install the driver again"),
    ),
    "bad health": Ailment(
        *("Health", "fail"),
        (npu_smi((CHIP, CHIP.replace("OK      ", "Critical"))),),
        *(
            "NPU 0: Critical at ",
            "to serve meanwhile: export ASR_NPUS=1, then make up; npu-smi info -t health -i 0 -c 0 names the error "
            "codes; once nothing uses the NPUs: sudo npu-smi set -t reset -i 0 -c 0",
        ),
    ),
    "warning": Ailment(
        *("Health", "warn"),
        (npu_smi((CHIP, CHIP.replace("OK     ", "Warning"))),),
        *("NPU 0: Warning", "a hot one: npu-smi info -t temp -i 0 -c 0"),
    ),
    "health that is not known": Ailment(
        *("Health", "warn"),
        (npu_smi((CHIP, CHIP.replace("OK     ", "UNKNOWN"))),),
        *("NPU 0: UNKNOWN", "sudo npu-smi info -t health -i 0 -c 0"),
    ),
    "bad health of another": Ailment(
        *("Health", "warn"),
        (npu_smi((CHIP_6, CHIP_6.replace("OK   ", "Alarm"))),),
        *("NPU 6: Alarm", "npu-smi info -t health -i 6 -c 0"),
    ),
    "an NPU that npu-smi does not list": Ailment(
        *("Health", "fail"),
        (npu_smi((CHIP, CHIP.replace("0", "9", 1))),),
        *("npu-smi lists no NPU 0", "export ASR_NPUS=1, then make up; lspci -d 19e5:"),
    ),
    "memory held": Ailment(
        *("Device memory", "fail"),
        (npu_smi(HBM, (IDLE, BUSY)),),
        *("NPU 0: 957 of 32768 MB free, 6244 needed; held by python3 (pid 4711: 28970 MB)", "export ASR_NPUS=1"),
    ),
    "memory held in a container": Ailment(
        *("Device memory", "fail"),
        (npu_smi(HBM, (IDLE, BUSY)), IN_CONTAINER, says("docker-ps", fake_hosts.container("vllm", ours=False))),
        *("python3 (pid 4711, container vllm: 28970 MB)", "stop them"),
    ),
    "memory held by nobody": Ailment(
        "Device memory", "fail", (npu_smi(HBM),), "held by no process that npu-smi shows", "stop"
    ),
    "weights missing": Ailment("Weights", "fail", (NO_WEIGHTS,), "no such directory", "invoke fetch-weights"),
    "weights damaged": Ailment(
        *("Weights", "fail"),
        (says("weights", fake_hosts.weights(*(f"{name}: missing" for name in "abcde"))),),
        *("a: missing; b: missing; c: missing (and 2 more)", "invoke fetch-weights"),
    ),
    "hub away": Ailment("Hub", "warn", (fails("hub", "DNS: no"),), "modelscope at https://", "ASR_HUB_ENDPOINT"),
    "hub away, weights too": Ailment("Hub", "fail", (fails("hub", "DNS: no"), NO_WEIGHTS), "DNS: no", "invoke bundle"),
    "hub wants a token": Ailment("Hub", "warn", (says("hub", "401"),), "answers 401", "ASR_HUB_TOKEN"),
}
