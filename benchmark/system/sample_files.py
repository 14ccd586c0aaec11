"""Files of given samples, listed before any is opened."""

from pathlib import Path

from benchmark.errors import InputError
from benchmark.system.files import digest, digest_file

MOST = 200_000
"""Largest number of samples."""
ARRAYS = (".npz", ".npy")


def sample_files(path: Path) -> dict[str, list[Path]]:
    """Files of the folders in ``path`` by folder name, or files directly in ``path`` under ``""``.

    Links are followed; names with a leading dot are skipped.

    Raises:
        InputError: If an entry is neither file nor folder, files lie deeper or beside folders, or there are no files
            or more than ``MOST``; names the first such entry.
    """
    entries = _entries(path)
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if entry not in set(folders)]
    if folders and loose:
        raise InputError(
            f"{loose[0]} lies beside the folder {folders[0].name}; remove it, or put all samples into folders of their "
            "classes or none"
        )
    found = {folder.name: _entries(folder) for folder in folders} or {"": loose}
    found = {name: files for name, files in found.items() if files}
    files = [file for of_folder in found.values() for file in of_folder]
    if not files:
        raise InputError(f"{path} holds no files; put image files there")
    if len(files) > MOST:
        raise InputError(f"{path} holds {len(files)} files; give at most {MOST} samples")
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} lies too deep; put files directly into {path}, or into folders of their classes")
        if file.suffix.lower() in ARRAYS:
            raise InputError(f"{file} is a file of arrays; join the arrays of all such files in one .npz and give that")
    return found


def _entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted by name."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        for entry in entries:
            if not entry.exists():
                raise InputError(f"{entry} is a link to nothing; fetch the file that it stands for, or remove it")
            _check_kind(entry)
    except OSError as error:
        raise InputError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    return entries


def _check_kind(path: Path) -> None:
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder; remove it")


def digest_of_samples(path: Path) -> str:
    """sha256 of a file's bytes, or of the names and bytes of the sample files in a folder.

    Raises:
        InputError: If there are none at ``path``, or ``sample_files`` refuses them.
    """
    if not path.is_dir():
        check_samples_at(path)
        return digest_file(path)
    files = [file for of_folder in sample_files(path).values() for file in of_folder]
    return digest({str(file.relative_to(path)): digest_file(file) for file in files})


def check_samples_at(path: Path) -> None:
    """Check that a path can hold samples, without opening files.

    Raises:
        InputError: If nothing is there, it is neither file nor folder, or ``sample_files`` refuses it.
    """
    if not path.exists():
        raise InputError(f"no samples at {path}; give an .npz file or a folder of image files")
    _check_kind(path)
    if path.is_dir():
        sample_files(path)
