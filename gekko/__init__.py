__version__ = "0.1.0"


def load_ipython_extension(shell: object) -> None:
    """`%load_ext gekko`: `%%paper`, `%runs`, and tables of facts. See `gekko.jobs.magic`, which is loaded here and not with the package."""
    from gekko.jobs.magic import load
    load(shell)
