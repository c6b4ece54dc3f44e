"""`python -IS client.py <socket> <program> <word> ...`: has the server run a program.

This process ends as the program ends, and passes on signals that tell it to end. If the server
cannot be reached, or refuses this client, this process becomes the program itself.
"""

import json
import os
import select
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _ask(address: str, words: list[str]) -> bytes:
    """The exit status of the program, as the server sends it; empty if the server ended."""
    mask = os.umask(0)
    os.umask(mask)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until they can be passed on
    asked = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "umask": mask}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
            while not select.select([server], [], [], 1)[0]:
                if signal.sigpending() & set(PASSED_ON):  # there is no program yet to pass it to
                    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            number = int(server.recv(64))
        except (OSError, ValueError):  # there is no server, or it refuses this client
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 (the words are the caller's own)
        for signum in PASSED_ON:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda received, _: os.kill(number, received))
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return server.recv(64)


if __name__ == "__main__":
    said = _ask(sys.argv[1], sys.argv[2:])
    if not said:
        sys.exit("the process that starts programs has ended")
    status = int(said)
    if status < 0:
        if -status in PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
