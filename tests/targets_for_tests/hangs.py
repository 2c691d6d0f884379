import time

from good import top_k  # noqa: F401


def sp(indices, values, g):
    while True:
        time.sleep(1)
