"""These files are targets, not tests; some cannot even be imported."""

collect_ignore_glob = ["*.py"]
