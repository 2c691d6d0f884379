SOLVER = "magic"


def sp(indices, values, g):
    return g
