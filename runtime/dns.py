"""Whether a name can be resolved, within a time that is known: the resolver itself cannot be given one."""

import socket
import threading

PAUSE = 1.0  # seconds until a name server that fails for now is asked again


def failure(host: str, *, seconds: float) -> str:
    """Why the name cannot be resolved within so many seconds, in the system's words; empty if it can."""
    outcome: list[str] = []
    over = threading.Event()
    words = ["no answer of the name server"]

    def look_up() -> None:
        while not over.is_set():
            try:
                socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except UnicodeError:  # no name: a label of more than 63 characters
                outcome.append("no name that there can be")
                return
            except socket.gaierror as error:
                words.append(str(error.strerror))
                if error.errno != socket.EAI_AGAIN:
                    outcome.append(words[-1])
                    return
            else:
                outcome.append("")
                return
            over.wait(PAUSE)

    # Left behind where the name server does not answer.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    over.set()
    return outcome[0] if outcome else f"{words[-1]}, for {seconds:g} s"
