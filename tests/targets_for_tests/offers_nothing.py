import json as sp  # noqa: F401


def topk(a, k):
    return a
