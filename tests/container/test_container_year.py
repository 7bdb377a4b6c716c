"""A year of a server, with a real engine, from `make up` to `make uninstall`, while somebody asks it all the time, over
TLS and with a key. What they notice of each step is what docker/UPGRADING.md says."""

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import Host, cloned, docker, layered, run
from pki import Pki, renamed, until, write
from serving import PATIENCE, TRANSCRIPTIONS, bearer

from env.field import variable
from env.sources import PROJECT
from runtime.demo import Clip
from runtime.ops.deploy import monitoring
from runtime.ops.deploy.compose import SERVES_AGAIN
from runtime.ops.deploy.image import CLONE_LABEL

OLD, NEW = "sk-of-the-old-year", "sk-of-the-new-year"
BATCH = variable("max_batch")
RULES = monitoring.FILES / "prometheus" / "rules.yml"
SERVER_PAGE = PROJECT / "runtime" / "server" / "README.md"
READ_AGAIN = "kill -HUP 1"
PAUSE = 0.2  # seconds between an answer and the next request
ANSWERED = "answered"
LOADING, REFUSED, CLOSED = "503", "no connection", "closed without an answer"
REPLACED = {LOADING, REFUSED, CLOSED}  # what docker/UPGRADING.md has for a server that is replaced or has crashed
LARGE = bytes(3 << 20)  # behind a clip, it does no harm, and is more than stays in memory
LOW = 2**28  # bytes, of AsrDiskLow


class Caller:
    """Somebody who has one clip transcribed over and over, on a connection that is kept as long as it lives."""

    def __init__(self, url: str, pki: Pki, clip: Clip) -> None:
        self.url, self.pki, self.clip, self.key = url, pki, clip, OLD
        self._seen: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """What is seen from now on until a request that is sent after the block has ended is in the list in the end."""
        first, found = len(self._seen), list[str]()
        self._await(1)
        yield found
        self._await(2)  # the first of them may have been sent before
        found += self._seen[first:]

    def _await(self, more: int) -> None:
        count = len(self._seen) + more
        until(lambda: len(self._seen) >= count or not self._thread.is_alive())

    def answer(self, *, key: str = "", behind: bytes = b"") -> httpx.Response:
        """A request on a connection of its own."""
        with httpx.Client(**self._options) as client:
            return self._ask(client, key=key, behind=behind)

    def get(self, path: str) -> httpx.Response:
        """Likewise, of what needs no key."""
        return httpx.get(self.url + path, **self._options)

    def metric(self, name: str) -> str:
        """A metric's line."""
        (line,) = re.findall(rf"^{re.escape(name)}.*$", self.get("/metrics").text, re.MULTILINE)
        return str(line)

    def free(self) -> float:
        """Bytes that are free for uploads."""
        return float(self.metric('asr_disk_free_bytes{directory="spool"}').split()[1])

    def ready(self) -> bool:
        """Whether the server says so."""
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def _options(self) -> dict[str, Any]:
        return {"verify": self.pki.client, "timeout": PATIENCE, "trust_env": False}

    def _ask(self, client: httpx.Client, *, key: str = "", behind: bytes = b"") -> httpx.Response:
        form = {"file": self.clip.path.read_bytes() + behind}
        return client.post(self.url + TRANSCRIPTIONS, headers=bearer(key or self.key), files=form)

    def _ask_on(self) -> None:
        with httpx.Client(**self._options) as client:
            while not self._over.wait(PAUSE):
                try:
                    self._seen.append(self._judged(self._ask(client)))
                except httpx.ConnectError:
                    self._seen.append(REFUSED)
                except httpx.TransportError:
                    self._seen.append(CLOSED)

    def _judged(self, answer: httpx.Response) -> str:
        if answer.status_code == 200 and answer.json()["text"] == self.clip.text:
            return ANSWERED
        if answer.status_code == 503 and int(answer.headers["retry-after"]) > 0:
            return LOADING
        return f"{answer.status_code}: {answer.text}"


def outages(seen: list[str]) -> list[set[str]]:
    """Of each stretch without an answer, what was seen instead."""
    return [set(stretch) for answered, stretch in groupby(seen, key=lambda what: what == ANSWERED) if not answered]


def assert_replaced_once(seen: list[str]) -> None:
    """The server answers until it is replaced, and again when the next one is ready: there is no other outage."""
    (outage,) = outages(seen)
    assert outage <= REPLACED
    assert (seen[0], seen[-1]) == (ANSWERED, ANSWERED)


@pytest.fixture(scope="module")
def own() -> Iterator[Path]:
    """What an operator keeps outside of the kit: keys and certificate."""
    with tempfile.TemporaryDirectory() as name:  # pytest's are closed to the container's user
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.create()


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, own: Path, pki: Pki) -> Iterator[Host]:
    """A host where the kit was cloned, and set up in .env."""
    host = cloned(tmp_path_factory.mktemp("year") / "kit")
    pki.issue(own / "tls", days=20)
    (own / "keys").mkdir()
    write(own / "keys" / "keys", f"alice:{OLD}")
    files = {"tls_cert_file": "tls/tls.crt", "tls_key_file": "tls/tls.key", "keys_file": "keys/keys"}
    lines = [f"{variable(name)}={own / path}" for name, path in files.items()]
    (host.clone / ".env").write_text("\n".join([*lines, f"{variable('spool_max_mib')}=16", f"{BATCH}=3", ""]))
    yield host
    if (host.clone / "out").exists():
        host.make("uninstall", YES="1")


@pytest.fixture(scope="module")
def caller(operator: Host, pki: Pki, speech: list[Clip]) -> Iterator[Caller]:
    """Who asks from the first start on."""
    up = operator.make("up")
    assert up.returncode == 0, up.stdout
    with Caller(f"https://127.0.0.1:{operator.port}", pki, speech[0]) as asking:
        yield asking


def batch(host: Host) -> str:
    """The setting that is changed, of the container that runs."""
    lines: list[str] = host.container("asr")["Config"]["Env"]
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{BATCH}="))


def test_once_up_it_answers(caller: Caller) -> None:
    with caller.watching() as seen:
        assert caller.answer().json()["text"] == caller.clip.text
        assert caller.answer(key=NEW).status_code == 401
    assert outages(seen) == []


def test_nobody_notices_a_new_certificate(caller: Caller, pki: Pki, own: Path, operator: Host) -> None:
    new = pki.issue(own / "renewed", days=90)
    with caller.watching() as seen:
        renamed(own / "renewed", own / "tls")
        until(lambda: pki.shown(operator.port) == new)
    assert outages(seen) == []


def test_nobody_notices_that_a_key_is_rotated(caller: Caller, own: Path, operator: Host) -> None:
    keys, container = own / "keys" / "keys", operator.container("asr")["Id"]
    assert f"`docker exec CONTAINER sh -c '{READ_AGAIN}'`" in SERVER_PAGE.read_text(encoding="utf-8")
    with caller.watching() as seen:
        write(keys, f"alice:{OLD}", f"alice-next:{NEW}")
        docker("exec", container, "sh", "-c", READ_AGAIN)
        until(lambda: caller.answer(key=NEW).status_code == 200)
        caller.key = NEW
    with caller.watching() as seen_then:
        write(keys, f"alice:{NEW}")
        until(lambda: caller.answer(key=OLD).status_code == 401)
    assert outages(seen + seen_then) == []


def test_another_setting_costs_one_restart(caller: Caller, operator: Host) -> None:
    settings = operator.clone / ".env"
    settings.write_text(settings.read_text().replace(f"{BATCH}=3", f"{BATCH}=4"))
    with caller.watching() as seen:
        result = operator.make("up")
    assert result.returncode == 0, result.stdout
    assert f" stays, with other settings: {BATCH}\n" in result.stdout
    assert batch(operator) == "4"
    assert_replaced_once(seen)


def test_another_version_costs_one_restart(caller: Caller, operator: Host) -> None:
    project = operator.clone / "pyproject.toml"
    project.write_text(project.read_text().replace('\nversion = "0.1.0"\n', '\nversion = "0.2.0"\n'))
    with caller.watching() as seen:
        result = operator.make("up")
    assert result.returncode == 0, result.stdout
    assert " → 0.2.0 (" in result.stdout
    assert 'version="0.2.0"' in caller.metric("asr_info")
    assert_replaced_once(seen)


def test_a_version_that_does_not_start_costs_one_outage(caller: Caller, operator: Host) -> None:
    before = operator.container("asr")["Image"]
    last = 'CMD ["python3", "-c", "raise SystemExit(\'no luck today\')"]'
    broken = layered(before, f"qwen3-asr-kit-test/year:{operator.port}", instructions=last, files={})
    with caller.watching() as seen:
        result = operator.make("up", ASR_IMAGE=broken)
    assert f"Error {SERVES_AGAIN}\n" in result.stdout
    assert "no luck today" in result.stdout
    assert operator.container("asr")["Image"] == before
    assert_replaced_once(seen)


def test_the_version_before_comes_back(caller: Caller, operator: Host) -> None:
    with caller.watching() as seen:
        result = operator.make("rollback")
    assert result.returncode == 0, result.stdout
    assert 'version="0.1.0"' in caller.metric("asr_info")
    assert batch(operator) == "4"
    assert_replaced_once(seen)


def test_without_room_on_disk_only_large_uploads_are_refused(caller: Caller, operator: Host) -> None:
    container = operator.container("asr")["Id"]
    assert f'asr_disk_free_bytes{{directory="spool"}} < 2^{LOW.bit_length() - 1}\n' in RULES.read_text(encoding="utf-8")
    with caller.watching() as seen:
        assert caller.free() > LOW
        docker("exec", container, "sh", "-c", "cat /dev/zero > /tmp/left-over 2> /dev/null || true")
        assert caller.free() < LOW
        refused = caller.answer(behind=LARGE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage")
        assert int(refused.headers["retry-after"]) > 0
        docker("exec", container, "rm", "/tmp/left-over")
        assert caller.free() > LOW
        assert caller.answer(behind=LARGE).json()["text"] == caller.clip.text
    assert outages(seen) == []


def test_a_server_that_crashes_again_and_again_comes_back(caller: Caller, operator: Host) -> None:
    container = operator.container("asr")["Id"]
    kill = ["docker", "exec", container, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"]
    docker(
        "exec", container, "sh", "-c", READ_AGAIN
    )  # after which Docker goes on to start it; after its kill it does not
    state = ("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container)
    with caller.watching() as seen:
        for crashes in range(1, 4):
            until(lambda: subprocess.run(kill, capture_output=True, check=False).returncode == 0)
            until(lambda crashes=crashes: docker(*state) == f"{crashes} running")  # type: ignore[misc]
        until(caller.ready)
    assert_replaced_once(seen)


def test_uninstalling_it_leaves_what_is_the_operators_own(caller: Caller, operator: Host, own: Path) -> None:
    ask = "from runtime.ops.deploy import image; print(image.clone())"
    told = run([".venv/bin/python", "-c", ask], cwd=operator.clone, environment=operator.environment)
    built = ("images", "--quiet", "--filter", f"label={CLONE_LABEL}={told.stdout.strip()}")
    assert docker(*built)
    with caller.watching() as seen:
        result = operator.make("uninstall", YES="1")
    assert result.returncode == 0, result.stdout
    (end,) = outages(seen)
    assert end <= REPLACED
    assert (seen[0], seen[-1]) == (ANSWERED, REFUSED)
    assert operator.containers() == []
    assert docker(*built) == ""
    assert not {".venv", "out"} & {path.name for path in operator.clone.iterdir()}
    assert (operator.clone / ".env").exists()
    assert {path.name for path in own.iterdir()} >= {"keys", "tls"}
