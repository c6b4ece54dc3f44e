"""Kills a program, and all of its session, at the moment that FAULT names.

FAULT is JSON: `program`, a part of the command line; `event` and `path`, what Python is about to do
(an audit event, and a pattern of its first argument); `once`, a file without which nothing happens.
"""

import json
import os
import re
import signal
import sys
from contextlib import suppress

fault = json.loads(os.environ.get("FAULT", "null"))


def on(event, arguments):
    """An audit hook."""
    if event != fault["event"] or not re.search(fault["path"], str(arguments[0])):
        return
    with suppress(FileNotFoundError):
        os.unlink(fault["once"])  # noqa: PTH108 (few imports)
        for number in map(int, filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208
            with suppress(ProcessLookupError):
                if number != os.getpid() and os.getsid(number) == os.getsid(0):
                    os.kill(number, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if fault and fault["program"] in " ".join(sys.orig_argv):
    sys.addaudithook(on)
