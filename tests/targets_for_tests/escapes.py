"""A target whose words hold what a terminal obeys: colours, a bell, a line over the line before."""


def sp(indices, values, g):
    print("printed \x1b[2J \u202e")
    raise ValueError("red \x1b[31m\nnext\x9b2J \x07")
