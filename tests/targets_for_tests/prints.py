import os
import sys

from good import top_k  # noqa: F401


def sp(indices, values, g):
    print("garbage" * 100)
    sys.stderr.write("more garbage\\n")
    os.write(1, bytes(range(256)) * 100)
    return (values * g[indices]).sum(1)
