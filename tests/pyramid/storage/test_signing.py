"""Addresses that are signed for a while, on a server that refuses what isn't signed, or no longer."""

import json

import numpy as np
import pytest

import hiresattn
from hiresattn.errors import OpenError, ReadError
from hiresattn.inference.lines import json_line
from hiresattn.pyramid import open_pyramid
from hiresattn.pyramid.stac import stac_sources
from hiresattn.reading.crops import read_crops
from tests.pyramid.formats.test_gdalcount import MODEL, SIDE, server_of, write

RNG = np.random.default_rng(0)
#: Corners of crops of 100 px: ten in the upper half of an image, ten in the lower.
PARTS = [np.stack([RNG.integers(low, low + 400, 10), RNG.integers(0, SIDE - 100, 10)], 1) for low in (0, 520)]


class Signer:
    """Signs with what the server accepts at the time; and counts."""

    def __init__(self, folder):
        self.token, self.calls = folder / "token", 0
        self.expire("first-secret")

    def expire(self, now):
        self.token.write_text(now)

    def __call__(self, address):
        self.calls += 1
        return f"{address}?token={self.token.read_text()}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


def items(folder, address, *names):
    assets = {name: {"href": f"{address}/{name}", "type": "image/tiff"} for name in names}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "geometry": None, "links": [], "assets": assets,
        "properties": {"datetime": "2020-01-02T03:04:05Z"},
    }  # fmt: skip
    (folder.parent / "item.json").write_text(json.dumps(item))
    return folder.parent / "item.json"


@pytest.mark.parametrize("kind", ["tiles", "strips", "two files"])
def test_what_expires_is_signed_anew_while_it_is_read(folder, kind):
    names = ["0.tif", "1.tif"] if kind == "two files" else ["0.tif"]
    for n, name in enumerate(names):
        write(folder / name, 0, driver="GTiff" if kind == "strips" else "COG", band=n)
    sign = Signer(folder)
    with server_of(folder) as log:
        (stack,) = stac_sources(items(folder, log.address, *names), names, patch_url=sign)
        with open_pyramid(stack) as image:
            assert sign.calls == len(names)
            for count, yx in enumerate(PARTS, start=1):
                sign.expire(f"secret-{count}")
                found = read_crops(image, yx, 100, threads=4).pixels
                for band, name in enumerate(names):
                    with open_pyramid(folder / name) as local:
                        wanted = read_crops(local, yx, 100).pixels
                    assert np.array_equal(found[..., band], wanted[..., 0])
                assert sign.calls == len(names) * (1 + count)


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
def test_a_signature_that_stays_refused_is_an_error_that_does_not_show_it(folder, driver):
    write(folder / "0.tif", driver=driver)
    asked = []

    def sign(address):
        asked.append(address)
        return f"{address}?token=first-secret"

    Signer(folder)
    with server_of(folder) as log:
        (stack,) = stac_sources(items(folder, log.address, "0.tif"), ["0.tif"], patch_url=sign)
        with open_pyramid(stack) as image:
            (folder / "token").write_text("other")
            assert len(asked) == 1
            with pytest.raises(ReadError, match="sign") as found:
                image.read(0, 300, 300, 600, 600)
            assert len(asked) == 2
            assert "secret" not in str(found.value)
        with pytest.raises(
            OpenError, match=rf"{log.address}/0.tif: the server refuses it \(HTTP 403.*sign"
        ) as found:
            open_pyramid(stack)
        assert "secret" not in str(found.value)
        (record,) = hiresattn.classify_all([stack], MODEL, on_error="record")
        assert record.status == "error"
        assert "secret" not in json_line(record.to_json())


def test_what_is_missing_does_not_show_its_signature(folder):
    with server_of(folder) as log:
        (stack,) = stac_sources(
            items(folder, log.address, "none.tif"), ["none.tif"], patch_url=Signer(folder)
        )
        with pytest.raises(OpenError, match=r"none\.tif: there is no such file") as found:
            open_pyramid(stack)
        assert "secret" not in str(found.value)
