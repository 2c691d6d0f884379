"""The executable paper: every printed line that executes is one tagged code line."""
