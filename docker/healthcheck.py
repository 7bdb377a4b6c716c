"""Is the server ready? Exit code 0 or 1, and its words, which `docker inspect` keeps. An argument is the path to ask
at: vLLM alone has another."""

import os
import ssl
import sys
import urllib.error
import urllib.request

SCHEME = "https" if os.environ.get("ASR_TLS_CERT_FILE") else "http"
PATH = sys.argv[1] if sys.argv[1:] else "/health/ready"
HOST = os.environ.get("ASR_HOST") or "127.0.0.1"
if HOST in ("0.0.0.0", "::"):  # all addresses of either family, the loopback's among them
    HOST = "127.0.0.1"
HOST = f"[{HOST}]" if ":" in HOST else HOST
URL = f"{SCHEME}://{HOST}:{os.environ.get('ASR_PORT') or 8000}{PATH}"


def main() -> int:
    """Ask once."""
    # No proxy, whatever the environment says, and any certificate: this is the container itself, and the certificate is
    # for the name that clients use.
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
    try:
        with opener.open(URL, timeout=4) as answer:
            print(answer.read(1000).decode())
            return 0
    except urllib.error.HTTPError as error:
        print(error.read(1000).decode())
    except OSError as error:
        print(f"{URL}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
