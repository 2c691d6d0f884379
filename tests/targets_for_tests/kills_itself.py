import os, signal, sys, time

import numpy as np
from good import top_k  # noqa: F401


def sp(indices, values, g):
    os.kill(os.getpid(), signal.SIGKILL)
