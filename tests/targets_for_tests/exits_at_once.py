import os

from good import top_k  # noqa: F401


def sp(indices, values, g):
    os._exit(5)
