"""A stand-in for the server that tests of processes hold in any state: `python process_server.py BEHAVIOUR`.

ready      answers, drains at once on SIGTERM
loading    never gets ready
draining   runs, and takes no more requests
restarting runs, and loads its engine again
odd        answers what no server of the kit would
deaf       ready, but ends on no signal that can be ignored
refuse     says why it cannot start, exit code 1
lost       says that its engine is lost, exit code 70
crash      dies by SIGABRT as soon as it is started
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


def main(behaviour: str) -> None:
    """Behave on ASR_HOST:ASR_PORT."""
    if behaviour == "refuse":
        sys.exit("ASR_MODEL: no such directory")
    if behaviour == "lost":
        print("the engine: has failed", file=sys.stderr)
        sys.exit(os.EX_SOFTWARE)
    if behaviour == "crash":
        print("about to crash", flush=True)
        os.abort()
    status = {"loading": "starting", "draining": "draining", "restarting": "restarting"}.get(behaviour, "ready")
    answer = b"<html>" if behaviour == "odd" else json.dumps({"status": status, "stage": behaviour}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if status == "ready" else 503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keeps the log for what tests look for."""

    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    with ThreadingHTTPServer((os.environ["ASR_HOST"], int(os.environ["ASR_PORT"])), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        print("serving", flush=True)
        while (received := signal.Signals(signal.sigwait(awaited))) == signal.SIGHUP or behaviour == "deaf":
            print("hung up" if received == signal.SIGHUP else f"deaf to {received.name}", flush=True)
        print(f"draining after {received.name}", flush=True)
        server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
