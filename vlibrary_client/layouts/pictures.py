"""The picture of a record: in it, beside it on the disk, or none. Nothing is fetched or decoded."""

import fnmatch
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from vlibrary_client.errors import InvalidImageError
from vlibrary_client.images import decode_base64, decode_data_url, image_bytes
from vlibrary_client.layouts.items import UnusableError

PICTURE_COLUMNS = ("image", "images", "file_name", "image_path")
MAX_PICTURE_BYTES = 64 << 20
# Those that no picture here can be are refused by their name when they are looked at.
PICTURE_KINDS = {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"}
PICTURE_KINDS |= {"heic", "heif", "jxl", "jp2", "ppm", "pgm", "pbm", "svg"}
_ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"}
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
# Archives of a Mac have a second file for each, with what the first cannot hold.
OF_MAC = "__MACOSX"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE_ADDRESS = "file://"
# Files of PNG, JPEG and WEBP; paths are not as long without a dot.
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|UklGR)[\w+/=\s-]{40,}", re.ASCII)


def files_below(folder: Path, pattern: str = "*") -> list[Path]:
    """Files in a folder and its folders by name, but for those that systems and tools hide.

    Links are followed, unless they lead back.
    """
    found: list[Path] = []
    for where, folders, names in os.walk(folder, followlinks=True):
        here = Path(where)
        folders[:] = [
            name
            for name in folders
            if not _is_hidden(name) and not here.resolve().is_relative_to((here / name).resolve())
        ]
        found += [here / name for name in fnmatch.filter(names, pattern) if not _is_hidden(name)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == OF_MAC


class ListedPictures:
    """Files of pictures below a folder by what an `image_id` may call them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _names(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """By their stem and by the last number in it; the folder is read when first needed."""
        by_stem: dict[str, list[str]] = {}
        by_number: dict[str, list[str]] = {}
        for path in files_below(self.root):
            if path.suffix.lower() in _ENDINGS:
                name = str(path.relative_to(self.root))
                by_stem.setdefault(path.stem, []).append(name)
                if match := _LAST_NUMBER.search(path.stem):
                    by_number.setdefault(str(int(match[1])), []).append(name)
        return by_stem, by_number

    def named(self, image_id: object) -> list[str]:
        """Those of this name, with or without its ending."""
        text, (by_stem, _) = str(image_id), self._names
        return by_stem.get(text) or by_stem.get(Path(text).stem, [])

    def numbered(self, image_id: object, *, split: str | None) -> list[str]:
        """Those of this name or last number; of several, those of the split's folder."""
        found = self.named(image_id) or self._names[1].get(str(image_id), [])
        return [name for name in found if split is not None and split in name.lower()] or found


class Pictures:
    """Finds the pictures of a source's records.

    Paths count from the folder, or else from the root, and none leads out of the root but to the
    blobs that a download from the Hugging Face hub has its links to; without a folder, as for
    uploads, no path is followed. Where files are listed, a record without a picture has the one
    that is called like its `image_id`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        root: Path | None = None,
        listed: ListedPictures | None = None,
    ) -> None:
        self._folder = folder
        self._root = None if folder is None else (root or folder).resolve()
        self._listed = listed
        self._listings: dict[Path, dict[str, str]] = {}

    def read(
        self, fields: Mapping[str, Any], *, inline: Sequence[Any] = ()
    ) -> tuple[bytes | None, str | None]:
        """The encoded picture of a record and what it is called, or twice None.

        Raises:
            UnusableError: There are several, or it cannot be read.
        """
        candidates: list[tuple[str, Any]] = [("content", value) for value in inline]
        for column in PICTURE_COLUMNS:
            value = fields.get(column)
            values = value if isinstance(value, list | tuple) else [value]
            if values is value and any(isinstance(one, int | float | list) for one in values):
                raise UnusableError(f"wanted its {column} as an encoded file, found numbers")
            candidates += [(column, one) for one in values if _key(one) is not None]
        candidates, called = _without_repeats(candidates)
        if len(candidates) > 1:
            names = " and ".join(dict.fromkeys(name for name, _ in candidates))
            raise UnusableError(f"it has {len(candidates)} pictures in {names}, wanted one")
        if not candidates and (path := self._called(fields.get("image_id"))) is not None:
            candidates = [("image_id", path)]
        data, name = self._read(candidates[0][1]) if candidates else (None, None)
        return data, name or called

    def _called(self, image_id: object) -> Path | None:
        """The file that is called like this, where files are listed and there is one."""
        if self._listed is None or not isinstance(image_id, str | int):
            return None
        found = self._listed.named(image_id)
        if len(found) > 1:
            raise UnusableError(f"several pictures are called like its image_id: {found[0]}, ...")
        return self._listed.root.resolve() / found[0] if found else None

    def _read(self, value: object) -> tuple[bytes | None, str | None]:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value), None
        if isinstance(value, Image.Image):
            return _encoded(value), None
        if isinstance(value, Mapping):
            return self._of_struct(value)
        if isinstance(value, Path):
            return self._of_path(value), value.name
        if isinstance(value, str):
            return self._of_text(value)
        raise UnusableError(
            f"wanted its image as Pillow's, bytes, a path or data URL, found {type(value).__name__}"
        )

    def _of_struct(self, value: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
        data, path = value.get("bytes"), value.get("path")
        name = path if isinstance(path, str) and path else None
        if data is None and name is None:
            found = ", ".join(str(key)[:40] for key in list(value)[:5])
            raise UnusableError(f"wanted its image with bytes or a path, found {found}")
        if isinstance(data, str):
            # In JSON, which has no bytes.
            return self._of_base64(data), name
        if data is not None and not isinstance(data, bytes):
            raise UnusableError("its image has bytes that are none")
        return (self._of_text(name)[0], name) if data is None and name else (data, name)

    @staticmethod
    def _of_base64(text: str) -> bytes:
        try:
            return (decode_data_url if text[:5].lower() == "data:" else decode_base64)(text)
        except ValueError as error:
            raise UnusableError(f"its image is no data URL of base64: {error}") from error

    def _of_text(self, text: str) -> tuple[bytes, str | None]:
        if _is_encoded(text):
            return self._of_base64(text), None
        if text.startswith(_FILE_ADDRESS):
            text = unquote(text.removeprefix(_FILE_ADDRESS))
        if _ADDRESS.match(text):
            raise UnusableError("its image is an address, and nothing is fetched")
        return self._of_path(text), text.replace("\\", "/")

    def _of_path(self, name: str | Path) -> bytes:
        if self._folder is None or self._root is None:
            raise UnusableError("its image has no bytes; a path alone is never followed")
        found = (self._found(folder, str(name)) for folder in (self._folder, self._root))
        path = next(filter(None, found), self._folder / name)
        try:
            allowed = (self._root, *_blobs(self._root))
            if not any(path.resolve().is_relative_to(one) for one in allowed):
                raise UnusableError("its image lies outside of the folder")
            if path.stat().st_size > MAX_PICTURE_BYTES:
                raise UnusableError(f"its image has more than {MAX_PICTURE_BYTES} bytes")
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no path"
            shown = str(name)[:200].encode(errors="replace").decode()
            raise UnusableError(f"cannot read the image file {shown}: {reason}") from error
        if not data:
            raise UnusableError("its image is an empty file")
        return data

    def _found(self, folder: Path, name: str) -> Path | None:
        """The path as it is written, or as another system would have written it."""
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            path = folder / text
            if _exists(path):
                return path
            if (other := self._otherwise_composed(path)) is not None:
                return other
        return None

    def _otherwise_composed(self, path: Path) -> Path | None:
        # Systems differ in how they write letters with accents.
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))
            if _exists(other):
                return other
        parent = path.parent
        if parent not in self._listings:
            self._listings[parent] = _listing(parent)
        name = self._listings[parent].get(unicodedata.normalize("NFC", path.name))
        return None if name is None else parent / name


def _blobs(root: Path) -> list[Path]:
    """Where the files of a download from the Hugging Face hub really lie."""
    for folder in (root, *root.parents):
        if folder.name == "snapshots" and folder.parent.name:
            return [folder.parent / "blobs"]
    return []


def _without_repeats(candidates: list[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], str | None]:
    """The pictures that columns give, and what other columns call the one that there is.

    Columns that say the same say it once; beside one encoded picture a path is what it is called.
    """
    found: list[tuple[str, Any]] = []
    for column, value in candidates:
        if all(other == column or _key(one) != _key(value) for other, one in found):
            found.append((column, value))
    encoded = [one for one in found if not is_path(one[1])]
    is_one_a_column = len({column for column, _ in found}) == len(found)
    if len(encoded) != 1 or not is_one_a_column:
        return found, None
    return encoded, next((str(value) for _, value in found if isinstance(value, str | Path)), None)


def _key(value: object) -> object:
    """What values that are the same picture have in common; nothing where there is none."""
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        data = value.get("bytes")
        return value.get("path") if data is None else _key(data)
    is_comparable = value is None or isinstance(value, str | bytes | Path | Mapping)
    return (value or None) if is_comparable else id(value)


def is_file(value: object) -> bool:
    """Whether a value, or one of several, is Pillow's picture or a Hugging Face file."""
    if isinstance(value, list):
        return any(map(is_file, value))
    return isinstance(value, Image.Image) or (
        isinstance(value, Mapping) and {*value} == {"bytes", "path"}
    )


def is_path(value: object) -> bool:
    """Whether a picture is told by where it lies; of several, whether the first is."""
    if isinstance(value, list):
        return bool(value) and is_path(value[0])
    value = _key(value)
    return isinstance(value, Path) or (isinstance(value, str) and not _is_encoded(value))


def _is_encoded(text: str) -> bool:
    return text[:5].lower() == "data:" or _BASE64.fullmatch(text) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _listing(folder: Path) -> dict[str, str]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (OSError, ValueError):
        return {}
    return {unicodedata.normalize("NFC", name): name for name in names}


def _encoded(image: Image.Image) -> bytes:
    try:
        return image_bytes(image)
    except InvalidImageError as error:
        raise UnusableError(error.message) from error
