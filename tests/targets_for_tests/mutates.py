from good import top_k  # noqa: F401


def sp(indices, values, g):
    omega = (values * g[indices]).sum(1)
    g *= 2
    return omega
