"""Where the user's own files lie: one rule for all sources of data. Imports nothing heavy."""

from pathlib import Path

__all__ = ["located", "places"]


def places(given: str, root: str | Path) -> list[Path]:
    """Where a path of `data.source.path` may lie: from the current folder, then from data.root; `~` is the home."""
    path = Path(given).expanduser()
    return list(dict.fromkeys([path.absolute(), (Path(root).expanduser() / path).absolute()]))


def located(given: str, root: str | Path) -> Path:
    """The first of `places` that is there.

    Raises:
        FileNotFoundError: If none is; the message names them.
    """
    found = next((path for path in places(given, root) if path.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"data.source.path={given}: there is no {' and no '.join(map(str, places(given, root)))}"
        )
    return found
