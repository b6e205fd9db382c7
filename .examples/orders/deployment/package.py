"""The package: which files of the project are deployed, and the zip of them, the same bytes for the same files."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pathspec import GitIgnoreSpec

from deployment.errors import PackageError
from deployment.requirements import package_requirements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# What the app consists of. Has your app more, say a folder with templates? Add its name, and it is deployed; anything
# else that lies in the project's folder is taken for a mistake, for it may be a secret.
APP = frozenset({"function_app.py", "host.json", "requirements.txt", "shared"})
# Those that hold Python modules, and the pages that these serve, and nothing else.
CODE = frozenset({"shared"})
CODE_SUFFIXES = frozenset({".py", ".html", ".css", ".js", ".svg"})
HOST_JSON = PurePosixPath("host.json")
REQUIREMENTS = PurePosixPath("requirements.txt")
# The file that becomes host.json in a package for this durable backend.
HOST_JSON_OF = {"storage": HOST_JSON, "dts": PurePosixPath("host.dts.json")}
# What the Core Tools leave out whatever .funcignore says (FileSystemHelpers.GetLocalFiles).
NEVER_DEPLOYED_FOLDERS = frozenset({".git", ".vscode"})
NEVER_DEPLOYED_FILES = frozenset({".funcignore", ".gitignore", "local.settings.json", "project.lock.json"})
# The earliest time that a zip can hold: a file's own time would make every checkout another package.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
# rw-rw-rw- of a regular file, as the Core Tools set it: Azure mounts the package read-only anyway.
MODE = 0o100666
UNIX = 3


@dataclass(frozen=True, slots=True)
class Package:
    """What a package holds: the content of each file by its path in the package, in the order of the paths."""

    files: Mapping[PurePosixPath, bytes]

    @classmethod
    def of_project(cls, project: Path, backend: str = "storage", extras: Iterable[str] = ()) -> Package:
        """Read the files of `project` that .funcignore leaves.

        host.json is that of the durable backend; requirements.txt has all that is installed, with these extras.

        Raises:
            PackageError: there is no .funcignore or no host.json of this backend, a file is a symbolic link,
                something lies in the project's folder that is not the app, or a part of the app is missing or left out.
            RequirementsError: the requirements are not known.
        """
        paths = deployed_paths(project)
        _check_that_all_is_the_app(paths)
        _check_that_the_app_is_whole(paths)
        _check_that_no_module_is_left_out(project, paths)
        contents = {path: (project / path).read_bytes() for path in paths}
        host_json = project / HOST_JSON_OF[backend]
        if not host_json.is_file():
            raise PackageError(f"{host_json.name} is missing: it is host.json for the durable backend {backend!r}")
        contents[HOST_JSON] = host_json.read_bytes()
        contents[REQUIREMENTS] = package_requirements(project, extras)
        return cls({path: contents[path] for path in sorted(contents)})

    def write_zip(self, target: Path) -> None:
        """Write the zip. Nothing in it depends on the machine, the time or the version of a compressor."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for path, content in self.files.items():
                entry = zipfile.ZipInfo(str(path), TIMESTAMP)
                entry.create_system = UNIX
                entry.external_attr = MODE << 16
                archive.writestr(entry, content)

    def write_folder(self, target: Path) -> None:
        """Write the files below `target`, which is emptied first."""
        if target.exists():
            shutil.rmtree(target)
        for path, content in self.files.items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def chosen_backend(environ: Mapping[str, str]) -> str:
    """Return the durable backend that the environment's DURABLE_BACKEND names, storage where it names none.

    Raises:
        PackageError: there is no such backend.
    """
    backend = environ.get("DURABLE_BACKEND") or "storage"
    if backend not in HOST_JSON_OF:
        raise PackageError(f"DURABLE_BACKEND must be {' or '.join(HOST_JSON_OF)}, not {backend!r}")
    return backend


def deployed_paths(project: Path) -> list[PurePosixPath]:
    """Return the paths, relative to `project`, that .funcignore leaves, sorted.

    Raises:
        PackageError: there is no .funcignore, or a file or folder is a symbolic link.
    """
    ignore_file = project / ".funcignore"
    if not ignore_file.is_file():
        raise PackageError(f"{ignore_file} is missing: it says what is not deployed")
    ignored = GitIgnoreSpec.from_lines(ignore_file.read_text(encoding="utf-8").splitlines())
    return sorted(_walk(project, ignored))


def _walk(project: Path, ignored: GitIgnoreSpec) -> Iterator[PurePosixPath]:
    for folder, folders, files in os.walk(project):
        here = PurePosixPath(Path(folder).relative_to(project).as_posix())
        # os.walk goes into those that are left in the list: an ignored folder may hold a whole environment.
        folders[:] = [
            name for name in folders if name not in NEVER_DEPLOYED_FOLDERS and not ignored.match_file(f"{here / name}/")
        ]
        kept = [name for name in files if name not in NEVER_DEPLOYED_FILES and not ignored.match_file(str(here / name))]
        for path in (here / name for name in [*folders, *kept]):
            if (project / path).is_symlink():
                raise PackageError(f"{path} is a symbolic link: a package holds files only")
        yield from (here / name for name in kept)


def _check_that_all_is_the_app(paths: Iterable[PurePosixPath]) -> None:
    strangers = {path.parts[0] for path in paths if path.parts[0] not in APP}
    strangers |= {f"{path}" for path in paths if path.parts[0] in CODE and not _is_code(path)}
    if strangers:
        raise PackageError(
            f"{', '.join(sorted(strangers))}: not part of the app. Move it out of the project's folder, name it in "
            ".funcignore, or, if it is to be deployed, in APP of deployment/package.py"
        )


def _is_code(path: PurePosixPath) -> bool:
    return path.suffix in CODE_SUFFIXES or path.name == "py.typed"


def _check_that_the_app_is_whole(paths: Iterable[PurePosixPath]) -> None:
    # Azure takes a package without function_app.py, and runs no function. host.json has a message of its own.
    missing = APP.difference((path.parts[0] for path in paths), {str(HOST_JSON)})
    if missing:
        raise PackageError(f"{', '.join(sorted(missing))}: not there, or left out by .funcignore; the app needs it")


def _check_that_no_module_is_left_out(project: Path, paths: Iterable[PurePosixPath]) -> None:
    modules = {
        PurePosixPath(path.relative_to(project).as_posix()) for name in CODE for path in (project / name).rglob("*.py")
    }
    # What is hidden is of an editor.
    visible = {path for path in modules if not any(part.startswith(".") for part in path.parts)}
    if missing := sorted(map(str, visible.difference(paths))):
        raise PackageError(
            f"{', '.join(missing)}: .funcignore leaves it out of the package. Move it out of {' and '.join(CODE)}, "
            "rename it, or change the pattern"
        )
