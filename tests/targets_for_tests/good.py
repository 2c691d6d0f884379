import numpy as np


def sp(indices, values, g):
    return (values * g[indices]).sum(1)


def top_k(a, k):
    indices = np.argsort(-abs(a), kind="stable")[:k].astype(np.int32)
    return indices, a[indices]
