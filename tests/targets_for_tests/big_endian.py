from good import top_k  # noqa: F401


def sp(indices, values, g):
    omega = (values * g[indices]).sum(1)
    return omega.astype(omega.dtype.newbyteorder(">"))
