"""Images that take the places of Prometheus' and Grafana's where there is no registry."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine import layered, stand_in_base, unavailable
from tree import bare_environment

from env.sources import PROJECT

NOBODY = 65534  # whom Prometheus' image runs as
GRAFANA = 472  # whom Grafana's image runs as

# Only what the kit asks of Grafana: that it answers. Debian has no Grafana.
ANSWER = """import functools, http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
http.server.ThreadingHTTPServer(("", 3000), functools.partial(
    http.server.SimpleHTTPRequestHandler, directory="/srv")).serve_forever()
"""
WGET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1])
"""


def prometheus() -> str:
    """The name of an image with Debian's Prometheus, laid out like its makers'."""
    found = [shutil.which(name) for name in ("prometheus", "promtool")]
    if None in found:
        unavailable("nothing watched the server: apt-get install prometheus")
    files = {f"bin/{Path(path).name}": Path(path).read_bytes() for path in found if path}
    instructions = f"""COPY bin /bin
RUN mkdir -p /prometheus /etc/prometheus && chown {NOBODY}:{NOBODY} /prometheus
USER {NOBODY}:{NOBODY}
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]"""
    return layered(stand_in_base(), "qwen3-asr-kit-test/prometheus:1", instructions=instructions, files=files)


def grafana() -> str:
    """The name of an image that answers where Grafana would."""
    instructions = f"""COPY srv /srv
COPY bin /usr/local/bin
RUN mkdir -p /var/lib/grafana /etc/grafana/provisioning && chown {GRAFANA}:0 /var/lib/grafana
USER {GRAFANA}:0
ENTRYPOINT ["python3", "-c", {json.dumps(ANSWER)}]"""
    files = {"srv/api/health": "{}", "bin/wget": WGET}
    return layered(stand_in_base(), "qwen3-asr-kit-test/grafana:1", instructions=instructions, files=files)


@contextmanager
def process(words: list[str], sign: str, **environment: str) -> Iterator[None]:
    """A process, once it has printed its sign, until the end of the block."""
    with subprocess.Popen(
        words,
        cwd=PROJECT,
        env=bare_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout
        printed = []
        for line in running.stdout:
            printed.append(line)
            if sign in line:
                break
        else:
            pytest.fail("".join(printed))
        reading = threading.Thread(target=running.stdout.read)  # a full pipe would hold it up
        reading.start()
        try:
            yield
        finally:
            running.terminate()
            reading.join()
