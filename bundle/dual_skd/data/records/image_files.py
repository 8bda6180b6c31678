# SPDX-License-Identifier: Apache-2.0
"""Which files below a folder are images, and which of them make one volume."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.data.reading.formats import DICOM, FORMATS, NPZ, format_of_suffix
from dual_skd.errors import InputError

if TYPE_CHECKING:
    from dual_skd.data.reading.dicom_header import Header
    from dual_skd.data.reading.dicom_series import Series
    from dual_skd.data.records.dicom_ids import Ids

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_OTHERS = [one.suffixes for name, one in FORMATS.items() if name not in (DICOM, NPZ)]
IMAGE_SUFFIXES = (*chain.from_iterable(_OTHERS), *DICOM_SUFFIXES)
# in small letters: files of macOS, Windows and DICOM media; thumbnails, bins and the like of network drives and disks
JUNK_NAMES = (
    *("__macosx", "thumbs.db", "desktop.ini", "dicomdir"),
    *("@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
)
_FILES_OF_A_RUN = ("run.json", "datalist.json")


@dataclass(frozen=True)
class ImageFile:
    """One image below a folder.

    Args:
        image: its locator.
        patient: PatientID of its DICOM header, None when no header was read.
    """

    image: str
    patient: str | None = None


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Args:
        images: every image, sorted.
        others: files that are no images, sorted.
        single_slices: DICOM files that were left out, as they are no volume.
    """

    images: list[ImageFile]
    others: list[str]
    single_slices: list[str] = field(default_factory=list)


def is_image(path: str | Path) -> bool:
    """Tells whether a file is an image: by its suffix, else by the mark of a DICOM file."""
    name = os.path.basename(path).lower()
    if is_junk(name):
        return False
    # PACS exports often name slices by number or UID: DICOM part 10 has "DICM" after 128 bytes
    return name.endswith(".ima") or format_of_suffix(name) not in ("", NPZ) or _has_dicom_mark(path)


def is_dicom(path: str | Path) -> bool:
    """Tells whether an image file is a DICOM file: every image without one of the other formats' suffixes is."""
    return format_of_suffix(path) in ("", DICOM)


def is_junk(name: str) -> bool:
    """Tells whether a name is one that systems, drives and viewers leave behind, or the index of a DICOM medium."""
    return name.startswith(".") or name.lower() in JUNK_NAMES


def holds_run(folder: str | Path) -> bool:
    """Tells whether a folder is that of a training run; the plots there are no data."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in _FILES_OF_A_RUN)


def find_image_files(folder: str | Path, spatial_dims: int, entered: Entered | None = None) -> Found:
    """Lists the images below a folder, at any depth.

    In 3D the slices of a DICOM series in one folder are one volume: the folder where it holds nothing else, else
    ``folder#SERIES_UID``. Headers are read for that, in 3D only.

    Args:
        folder: where to look; linked folders are followed.
        spatial_dims: 2 for images, 3 for volumes.
        entered: see :func:`list_files`.

    Raises:
        InputError: a folder can't be opened.
    """
    files, others = list_files(folder, entered=entered)
    if spatial_dims == 2:
        return Found([ImageFile(file) for file in files], others)
    headers, broken, no_images = headers_of([file for file in files if is_dicom(file)])
    # a file that can't be read counts as an image: reading it says what is wrong
    plain = [file for file in files if not is_dicom(file)] + [file for file, _ in broken]
    images, single_slices = volumes(headers, beside=plain)
    images += [ImageFile(file) for file in plain]
    return Found(sorted(images, key=lambda image: image.image), sorted(others + no_images), sorted(single_slices))


def headers_of(
    files: list[str], *, only_ids: bool = False
) -> tuple[list[Header | Ids], list[tuple[str, InputError]], list[str]]:
    """Reads the headers of DICOM files.

    Args:
        files: DICOM files.
        only_ids: read no more than the ids, which is faster.

    Returns:
        (headers, files that can't be read with the reason, DICOM files that hold no image, such as reports).
    """
    from dual_skd.data.reading.dicom_file import NotAnImage
    from dual_skd.data.reading.dicom_header import read_headers  # pydicom is only loaded where there is DICOM
    from dual_skd.data.records.dicom_ids import read_ids

    headers: list[Header | Ids] = []
    broken: list[tuple[str, InputError]] = []
    no_images: list[str] = []
    for file, header in zip(files, (read_ids if only_ids else read_headers)(files), strict=True):
        if isinstance(header, NotAnImage) and _has_dicom_mark(file):
            no_images.append(file)
        elif isinstance(header, InputError):
            broken.append((file, header))
        else:
            headers.append(header)
    return headers, broken, no_images


class Entered:
    """The folders that are gone through, by their real paths, so that no link leads into them again.

    Args:
        folders: those that are gone through anyway.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        self._entered: set[str] = set()
        self._above: set[str] = set()
        for folder in folders:
            self._add(Path(os.path.realpath(folder)))

    def by_link(self, link: str) -> bool:
        """Whether a link leads to a folder outside of all of them, which is one of them from now on."""
        folder = Path(os.path.realpath(link))
        if str(folder) in self._above or not self._entered.isdisjoint(map(str, (folder, *folder.parents))):
            return False
        self._add(folder)
        return True

    def _add(self, folder: Path) -> None:
        self._entered.add(str(folder))
        self._above.update(map(str, folder.parents))


def list_files(
    folder: str | Path, *, junk: bool = False, entered: Entered | None = None
) -> tuple[list[str], list[str]]:
    """Returns (image files, other files) below a folder, sorted; links that lead in circles are among the others.

    So are the files in folders of training runs below it.

    Args:
        folder: where to look.
        junk: the folder itself is to be left out, so that none of its files is an image.
        entered: folders that links must not lead into; None: the folder itself.

    Raises:
        InputError: a folder can't be opened, other than those of an operating system.
    """
    images: list[str] = []
    others: list[str] = []
    entered = entered or Entered([folder])
    ahead = [(str(folder), junk)]
    while ahead:
        path, junk = ahead.pop()
        junk = junk or (path != str(folder) and holds_run(path))
        for entry in _listed(path, junk):
            _refuse_unwritable(entry.path)
            is_left_out = junk or is_junk(entry.name)
            link = entry.is_symlink()  # of one that leads to itself, entry says nothing but an error
            if os.path.isdir(entry.path) if link else entry.is_dir():
                if link and not entered.by_link(entry.path):
                    others.append(entry.path)
                else:
                    ahead.append((entry.path, is_left_out))
            elif not (os.path.isfile(entry.path) if link else entry.is_file()) and os.path.exists(entry.path):
                others.append(entry.path)  # a pipe or a device, which would never end
            elif not is_left_out and is_image(entry.path):
                images.append(entry.path)
            else:
                others.append(entry.path)
    return sorted(images), sorted(others)


def _listed(path: str, junk: bool) -> list[os.DirEntry[str]]:
    """The entries of a folder in their order, none of junk that can't be opened, such as root's lost+found."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if junk:
            return []
        raise InputError(f"The folder {path} can't be opened: {error.strerror}; make it readable.") from error


def _refuse_unwritable(path: str) -> None:
    """Raises InputError for a name that no table or report can hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"The name of {path!a} isn't UTF-8; rename it.") from None


def volumes(headers: Iterable[Any], *, beside: Iterable[str] = ()) -> tuple[list[ImageFile], list[str]]:
    """Groups DICOM files into volumes, by folder and by series.

    Args:
        headers: of files in any folders.
        beside: other images, so that a folder with more than one series is not taken for one.

    Returns:
        (volumes, files of single slices, which are no volume).

    Raises:
        InputError: the slices of one volume lie in several folders.
    """
    from dual_skd.data.reading.dicom_series import group_series

    shared = {os.path.dirname(file) for file in beside}
    folders: dict[str, list[Header]] = {}
    images: list[ImageFile] = []
    single: list[str] = []
    for header in headers:
        folder = os.path.dirname(header.path)
        if header.frames > 1:
            images.append(ImageFile(header.path, header.patient))
            shared.add(folder)
        else:
            folders.setdefault(folder, []).append(header)
    series_of = {folder: group_series(members) for folder, members in folders.items()}
    _refuse_scattered(series_of)
    for folder, found in series_of.items():
        alone = len(found) == 1 and folder not in shared
        for series in found:
            if len(series.headers) > 1 or series.headers[0].mosaic:  # reading a mosaic says what it is
                locator = folder if alone or not series.uid else f"{folder}#{series.uid}"
                images.append(ImageFile(locator, series.headers[0].patient))
            else:  # a localiser, or a picture
                single += [header.path for header in (*series.headers, *series.left_out)]
    return images, single


def _refuse_scattered(series_of: Mapping[str, Sequence[Series]]) -> None:
    """Raises InputError where the slices of several folders together are one stack: each folder has a part of a volume.

    Copies of a volume, time points at the same places, and series that an anonymiser gave one UID make no such stack.
    """
    from dual_skd.data.reading.dicom_series import is_one_stack

    parts: dict[str, dict[str, Series]] = {}
    for folder, found in series_of.items():
        for series in found:
            if series.uid:
                parts.setdefault(series.uid, {})[folder] = series
    for uid, of_folder in parts.items():
        if len(of_folder) > 1 and is_one_stack(of_folder.values()):
            names = " and ".join(sorted(of_folder)[:2])
            raise InputError(
                f"The slices of the series {uid} lie in {len(of_folder)} folders, for example {names}; put its files "
                "into one folder."
            )


def _has_dicom_mark(path: str | Path) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # it counts as a file that was left out
        return False
