from good import top_k  # noqa: F401


def sp(indices, values, g):
    return (values * g[indices]).sum(1).tolist()
