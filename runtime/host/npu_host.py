"""Whether this host has NPUs, by what can be seen of them without their driver; and that the demo model takes the place
of a real one there only where somebody asks for it."""

import contextlib
import shutil
from pathlib import Path

from env.errors import KitError
from env.field import variable
from env.settings import DEMO, Settings

HOST_ROOT = Path("/")
NPU_MANAGER = "/dev/davinci_manager"  # there on every host whose NPU driver is loaded
NPU_SMI = ("/usr/local/bin/npu-smi", "/usr/local/sbin/npu-smi")
PCI_DEVICES = "sys/bus/pci/devices"
HUAWEI, ACCELERATOR = "0x19e5", "0x12"  # as lspci knows them: the vendor, and a class's first byte
# Kunpeng's own compression engine is an accelerator, too: 0xa250. NPUs have 0xd100 (310), 0xd500 (310P), 0xd801 (910),
# 0xd802 (910B), 0xd803 (A3).
NPU_IDS = "0xd"


def find_signs(root: Path | None = None) -> list[str]:
    """What says that the host with this root directory has NPUs, driver or not; empty where nothing does."""
    at = root or HOST_ROOT
    nodes = sorted(f"/dev/{path.name}" for path in (at / "dev").glob("davinci*"))
    tools = [path for path in NPU_SMI if (at / path.lstrip("/")).is_file()]
    if not tools and at == Path("/"):
        tools = list(filter(None, [shutil.which("npu-smi")]))
    cards = sorted(path.name for path in (at / PCI_DEVICES).glob("*") if _is_npu(path))
    on_bus = [f"{len(cards)} on the PCI bus, the first at {cards[0]}"] if cards else []
    return [*nodes[:1], *tools[:1], *on_bus]


def _is_npu(device: Path) -> bool:
    """Whether a device of the PCI bus is an NPU."""
    with contextlib.suppress(OSError):
        files = (device / name for name in ("vendor", "class", "device"))
        vendor, kind, name = (file.read_text(encoding="ascii").strip() for file in files)
        return vendor == HUAWEI and kind.startswith(ACCELERATOR) and name.startswith(NPU_IDS)
    return False


def is_default_demo(settings: Settings) -> bool:
    """Whether the demo model is to run because neither ASR_PROFILE nor ASR_MODEL says anything. Beside ASR_VLLM_URL it
    is for the servers there."""
    asked = any(settings.origin(name) != "default" for name in ("profile", "model"))
    front = settings.engine_name == "vllm" and settings.vllm_url
    return settings.model == DEMO and not asked and not front


def demo_refused(found: list[str], *, loaded: bool) -> KitError:
    """The words for a host with these signs of NPUs, for which no profile was chosen. `loaded`: its driver is there."""
    driver = "" if loaded else f", but {NPU_MANAGER} is not there: the NPU driver is not loaded"
    repair = "" if loaded else "install or load it (lsmod | grep drv_; after an upgrade: sudo reboot), then "
    return KitError(
        variable("profile"),
        f"is not set, and this is an NPU host ({', '.join(found)}){driver}; the demo model does not take its place",
        f"{repair}invoke doctor; export ASR_PROFILE=…, see env/profiles; for the demo model: export ASR_PROFILE=cpu, "
        "or once: ASR_PROFILE=cpu make smoke",
    )


def check_demo(settings: Settings) -> None:
    """Raises KitError where the demo model would run without being asked for, and this is an NPU host."""
    if is_default_demo(settings) and (found := find_signs()):
        raise demo_refused(found, loaded=(HOST_ROOT / NPU_MANAGER.lstrip("/")).exists())
