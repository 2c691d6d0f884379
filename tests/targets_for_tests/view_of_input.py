from good import top_k  # noqa: F401


def sp(indices, values, g):
    return values[:, 0] * 0 if values.shape[1] == 0 else values[:, 0]
