from good import top_k  # noqa: F401


def sp(indices, values, g):
    raise ValueError("no idea")
