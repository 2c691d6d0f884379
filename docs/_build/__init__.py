"""What turns the repository into the site: see ``docs/build.py``."""
