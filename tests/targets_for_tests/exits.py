import sys

from good import top_k  # noqa: F401


def sp(indices, values, g):
    sys.exit(3)
