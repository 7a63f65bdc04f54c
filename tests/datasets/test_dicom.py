"""Files of one DICOM series are one slide."""

import struct

import pytest

from hiresattn.datasets.dicom import read_instance
from hiresattn.datasets.folder import read_folder
from hiresattn.datasets.manifest import read_manifest
from hiresattn.datasets.sources import sources_of
from hiresattn.errors import ConfigError

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def element(tag, kind, value):
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind)
    return (
        head + (struct.pack("<xxI", len(value)) if kind == b"SQ" else struct.pack("<H", len(value))) + value
    )


def nested(series, *, defined):
    """A sequence that names another series, before the file's own."""
    inside = element(0x0020000E, b"UI", series.encode())
    if defined:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
        return element(0x00081115, b"SQ", item)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inside + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    head = struct.pack("<HH2sxxI", 0x0008, 0x1115, b"SQ", 0xFFFFFFFF)
    return head + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def instance(path, series="1.2.3", kind="VOLUME", side=1000, what=WHOLE_SLIDE, *, defined=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        b"\0" * 128 + b"DICM" + element(0x00020010, b"UI", b"1.2.840.10008.1.2.1"),
        element(0x00080008, b"CS", f"ORIGINAL\\PRIMARY\\{kind}\\NONE".encode()),
        element(0x00080016, b"UI", what.encode()),
        nested("9.9.9", defined=defined),
        element(0x0020000E, b"UI", series.encode()),
        *(element(tag, b"UL", struct.pack("<I", side)) for tag in (0x00480006, 0x00480007)),
    ]
    path.write_bytes(b"".join(parts))
    return str(path)


@pytest.mark.parametrize("defined", [True, False])
def test_the_header_is_read_past_sequences(tmp_path, defined):
    found = read_instance(instance(tmp_path / "a.dcm", "1.2.3", side=500, defined=defined))
    assert (found.series, found.image, found.px) == ("1.2.3", True, 250_000)


def test_what_is_no_whole_slide_file_is_not_known(tmp_path):
    (tmp_path / "text.dcm").write_text("no header")
    assert read_instance(tmp_path / "text.dcm") is None
    assert read_instance(tmp_path / "missing.dcm") is None
    assert read_instance(instance(tmp_path / "ct.dcm", what="1.2.840.10008.5.1.4.1.1.2")) is None
    whole = (tmp_path / "ct.dcm").read_bytes()
    for kept in range(0, len(whole), 7):
        (tmp_path / "cut.dcm").write_bytes(whole[:kept])
        assert read_instance(tmp_path / "cut.dcm") is None


def test_a_series_in_a_folder_is_one_source_without_label_and_overview(tmp_path):
    for k, side in enumerate((250, 1000, 500)):
        instance(tmp_path / f"level{k}.dcm", side=side)
    for kind in ("LABEL", "OVERVIEW", "THUMBNAIL"):
        instance(tmp_path / f"{kind}.dcm", kind=kind, side=2000)
    other = instance(tmp_path / "other.dcm", "1.2.4")
    (tmp_path / "broken.dcm").write_text("no header")
    expected = [str(tmp_path / "broken.dcm"), str(tmp_path / "level1.dcm"), other]
    assert list(sources_of(str(tmp_path))) == expected
    assert list(sources_of(str(tmp_path / "*.dcm"))) == expected
    assert list(sources_of(str(tmp_path / "level2.dcm"))) == [str(tmp_path / "level2.dcm")]  # as asked for


def test_a_series_in_two_splits_is_refused(tmp_path):
    for split, label in (("train", "a"), ("train", "b"), ("val", "a")):
        instance(tmp_path / split / label / "x.dcm", "1.2.3" if label == "a" else "1.2.4")
    with pytest.raises(ConfigError, match="of one DICOM series, one slide"):
        read_folder(tmp_path)
    table = tmp_path / "table.csv"
    table.write_text("path,label,split\ntrain/a/x.dcm,a,train\ntrain/b/x.dcm,b,train\nval/a/x.dcm,a,val\n")
    with pytest.raises(ConfigError, match=r"the DICOM series '1\.2\.3' is in split 'train'"):
        read_manifest(table, labels=True)
