import os
import signal

from good import top_k  # noqa: F401


def sp(indices, values, g):
    os.kill(os.getpid(), signal.SIGKILL)
