"""What OME-XML states of the images in a TIFF file. Parsed as XML, within bounds, and without entities of its own."""

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from hiresattn.errors import OpenError
from hiresattn.pyramid.mpp import micrometres

#: Longest text that is parsed, characters: a plane takes about 100.
MAX_CHARACTERS = 64 << 20


@dataclass
class OmeImage:
    """One ``Image`` element."""

    name: str = ""
    """Its name."""
    pixels: dict[str, str] = field(default_factory=dict)
    """Attributes of its ``Pixels``."""
    channels: list[dict[str, str]] = field(default_factory=list)
    """Attributes of each ``Channel``."""
    planes: list[dict[str, str]] = field(default_factory=list)
    """Attributes of each ``TiffData``; ``file`` and ``uuid`` are those of its ``UUID``."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, px; 0 where the file doesn't tell."""
        return self._number("SizeY", 0), self._number("SizeX", 0)

    @property
    def bands(self) -> int:
        """Bands: channels times samples."""
        return self._number("SizeC", 1)

    @property
    def mpp(self) -> tuple[float | None, float | None]:
        """Micrometres per px along y and x."""
        y, x = (
            micrometres(self.pixels.get(f"PhysicalSize{axis}"), self.pixels.get(f"PhysicalSize{axis}Unit"))
            for axis in "YX"
        )
        return y, x

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """A name for each band; None if they have none, or several bands share one."""
        names = tuple(channel.get("Name", "") for channel in self.channels)
        return names if any(names) and len(names) == self.bands else None

    def has_directory(self, index: int) -> bool:
        """Whether a directory of the TIFF file, counted from 0, holds one of its planes."""
        for plane in self.planes:
            first = _whole(plane.get("IFD"), 0)
            count = 1 if "IFD" in plane else self._number("SizeZ", 1) * self._number("SizeT", 1) * self.bands
            if first <= index < first + _whole(plane.get("PlaneCount"), count):
                return True
        return False

    def _number(self, attribute: str, default: int) -> int:
        return _whole(self.pixels.get(attribute), default)


def parse_ome(text: str, source: str) -> tuple[list[OmeImage], str]:
    """The images of OME-XML, in order, and the UUID of its file ("" where it has none).

    Args:
        text: The XML.
        source: Path of the TIFF file, for messages.

    Raises:
        OpenError: If it isn't well-formed, declares a document type, is too long, or only names another file.
    """
    if len(text) > MAX_CHARACTERS:
        raise OpenError(
            f"{source}: its OME-XML has {len(text)} characters, at most {MAX_CHARACTERS} are read; export it again"
        )
    reader = _Reader()
    try:
        reader.parser.Parse(text.strip().rstrip("\0"), True)  # noqa: FBT003 - expat takes no keyword
    except (expat.ExpatError, ValueError) as error:
        raise OpenError(
            f"{source}: its OME-XML is damaged, so its planes can't be identified ({error}); export it again"
        ) from error
    if reader.elsewhere and not reader.images:
        raise OpenError(
            f"{source}: its OME-XML lies in another file, {reader.elsewhere}; store the image in one file"
        )
    return reader.images, reader.uuid


def refuse_partners(image: OmeImage, images: list[OmeImage], uuid: str, source: str) -> None:
    """Raise ``OpenError`` if planes of an image lie in other files; names them."""
    everywhere = {plane["file"] for other in images for plane in other.planes if plane.get("file")}
    own = {Path(source).name} | (everywhere if len(everywhere) == 1 and not uuid else set())
    others = sorted(
        {
            plane["file"]
            for plane in image.planes
            if plane.get("file") and plane["file"] not in own and not (uuid and plane.get("uuid") == uuid)
        }
    )
    if others:
        absent = [name for name in others if not (Path(source).parent / Path(name).name).exists()]
        what = f", of which {', '.join(absent)} are missing" if absent else ""
        raise OpenError(
            f"{source}: an OME-TIFF spread over several files: {', '.join(others)} hold planes of it{what}; "
            "store it in one file"
        )


class _Reader:
    """Collects elements as the parser meets them."""

    def __init__(self) -> None:
        self.images: list[OmeImage] = []
        self.uuid = ""
        self.elsewhere = ""
        self._in_uuid = False
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type, which OME-XML doesn't have")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition("}")[2]
        here = self.images[-1] if self.images else OmeImage()
        if tag == "OME":
            self.uuid = attributes.get("UUID", "")
        elif tag == "Image":
            self.images.append(OmeImage(name=attributes.get("Name", "")))
        elif tag == "Pixels":
            here.pixels = attributes
        elif tag == "Channel" and here.pixels:
            here.channels.append(attributes)
        elif tag == "TiffData":
            here.planes.append(attributes)
        elif tag == "UUID" and here.planes:
            here.planes[-1]["file"] = attributes.get("FileName", "")
            here.planes[-1]["uuid"] = ""
            self._in_uuid = True
        elif tag == "BinaryOnly":
            self.elsewhere = attributes.get("MetadataFile", "")

    def _end(self, name: str) -> None:
        self._in_uuid = self._in_uuid and name.rpartition("}")[2] != "UUID"

    def _text(self, text: str) -> None:
        if self._in_uuid:
            self.images[-1].planes[-1]["uuid"] += text.strip()


def _whole(text: str | None, default: int) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        return default
