"""A push of DVC that is killed when it has listed nine of the objects."""

import os
import signal

from dvc.repo import Repo
from dvc_data.index import DataIndex

put, listed = DataIndex.__setitem__, []


def counted(index, key, entry):
    put(index, key, entry)
    if key[0] == "push":
        listed.append(key)
    if len(listed) == 9:
        os.kill(os.getpid(), signal.SIGKILL)


DataIndex.__setitem__ = counted
Repo().push()
