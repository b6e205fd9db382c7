"""Where a package is written: what was there before is removed only where an earlier package was written there."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from deployment.errors import PackageError

if TYPE_CHECKING:
    from pathlib import Path


def check_is_ours(folder: Path, archive: Path) -> None:
    """See that `folder` may be emptied: it is empty, or has what `archive`, the zip beside it, has, and perhaps more.

    More, since tools that deploy it may put an environment into it.

    Raises:
        PackageError: it is something else.
    """
    if folder.is_symlink() or (folder.exists() and not _may_be_emptied(folder, archive)):
        raise PackageError(
            f"{folder} would be emptied, and is not what was unpacked from {archive}. "
            "Remove it, or choose another folder with --output"
        )


def _may_be_emptied(folder: Path, archive: Path) -> bool:
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        with zipfile.ZipFile(archive) as package:
            names = package.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names) and all((folder / name).is_file() for name in names)
