import os, signal, sys, time

import numpy as np
from good import top_k  # noqa: F401


def sp(indices, values, g):
    for fd in range(3, 30):
        try:
            os.write(fd, b"garbage!" * 20)
        except OSError:
            pass
    return (values * g[indices]).sum(1)
