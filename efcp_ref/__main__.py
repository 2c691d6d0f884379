"""``python -m efcp_ref`` is ``efcp-ref``."""

from efcp_ref.cli import main

if __name__ == "__main__":
    main(prog_name="python -m efcp_ref")
