"""Classification end to end, on arrays and small models."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hiresattn.card import Domain
from hiresattn.checkpoint import Model
from hiresattn.config import InputConfig, ModelConfig
from hiresattn.datasets.example import Example
from hiresattn.errors import ConfigError, DomainError, NotFoundError, ReadError, RegionError
from hiresattn.geometry import Grid, cell_regions, expandable, overlaps
from hiresattn.inference.classify import classify, classify_all
from hiresattn.inference.to_record import to_record
from hiresattn.model.build import build_model
from hiresattn.pyramid.array import ArrayPyramid
from hiresattn.pyramid.pixels import Pixels


def _model(bands=1, dtype="uint8", **domain):
    torch.manual_seed(0)
    rule = InputConfig(bands=tuple(range(bands)), low=(0.0,) * bands, high=(255.0,) * bands, dtype=dtype)
    config = ModelConfig(classes=("dark", "light"), input=rule)
    return Model(build_model(config).eval(), config, "test", "abc", Domain(**domain))


def _image(height=700, width=1100, bands=1, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 255, (height, width, bands)).astype(dtype)


def _one(source, model=None, **options):
    return classify(source, model or _model(), device="cpu", stop=None, **options)


def test_an_answer_says_what_where_and_what_it_cost():
    found = _one(_image(), budget=20)
    assert found.status == "ok"
    assert found.class_name in ("dark", "light")
    assert sum(found.scores.values()) == pytest.approx(1)
    assert found.score == max(found.scores.values())
    assert found.cost.glimpses == len(found.regions) == 20
    assert sum(r.attention for r in found.regions) == pytest.approx(1, abs=1e-5)
    assert found.cost.stop_reason == "budget"
    assert found.model == {"name": "test", "sha256": "abc", "engine": "torch"}
    assert found.scorer == "location"
    assert 0 < found.cost.seconds.read < found.cost.seconds.total


def test_regions_are_inside_the_image_and_cells_of_their_parents():
    found = _one(_image(), budget=40)
    model = _model()
    for region in found.regions:
        assert 0 <= region.y <= 700 - region.height
        assert 0 <= region.x <= 1100 - region.width
        if region.parent is not None:
            parent = found.regions[region.parent]
            box = np.array([[parent.y, parent.x, parent.height, parent.width]])
            assert expandable(box, 64)[0]
            cells = cell_regions(box, model.config.grid, 64)[0].tolist()
            assert [region.y, region.x, region.height, region.width] in cells


def test_every_tile_touched_is_decoded_exactly_once():
    class Counting(ArrayPyramid):
        reads: list = []  # noqa: RUF012 - one test

        def read_tile(self, level, row, column, buffer=None, bands=None):
            self.reads.append((level, row, column))
            return super().read_tile(level, row, column, buffer, bands)

    found = _one(Counting(_image(3000, 3000)), budget=64)
    assert found.cost.tiles == len(Counting.reads) == len(set(Counting.reads))


def test_a_window_is_classified_as_if_it_were_the_image():
    image = _image(900, 900)
    part = image[200:712, 300:812]
    whole = _one(part, budget=20)
    window = _one(Example(image, region=(200, 300, 512, 512)), budget=20)
    assert window.scores == pytest.approx(whole.scores, abs=1e-6)
    assert [(r.y - 200, r.x - 300) for r in window.regions] == [(r.y, r.x) for r in whole.regions]
    assert window.region == (200, 300, 512, 512)


def test_the_answer_does_not_depend_on_the_threads():
    one, many = (_one(_image(), budget=30, threads=n) for n in (1, 8))
    assert one.scores == many.scores
    assert one.regions == many.regions


@pytest.mark.parametrize(
    ("policy", "glimpses"), [("lowres", 2), ("top-k", 2 + 2 * 4 + 8 * 2), ("random", 30)]
)
def test_policies(policy, glimpses):
    found = _one(_image(1100, 2200), budget=30, policy=policy)
    assert found.cost.glimpses == glimpses


def test_a_budget_in_bytes_is_kept_to_within_one_step():
    found = _one(_image(3000, 3000), budget="2MB")
    assert found.cost.stop_reason == "budget"
    whole = _one(_image(3000, 3000), budget=200)
    assert found.cost.glimpses < whole.cost.glimpses


@pytest.mark.parametrize("budget", ["1B", "0.000001s"])
def test_nothing_is_read_ahead_that_the_budget_does_not_let_be_looked_at(budget):
    """Root regions of tiles of their own: what is read is what is looked at."""
    strip = _image(64, 64 * 40)
    found, least = (_one(strip, budget=b) for b in (budget, 1))
    assert found.cost.glimpses == 1
    assert (found.cost.tiles, found.cost.bytes_read) == (least.cost.tiles, least.cost.bytes_read)


def test_an_image_of_nodata_gets_no_answer():
    pyramid = ArrayPyramid(np.zeros((500, 500, 1), np.uint8), nodata=0)
    found = _one(pyramid)
    assert found.status == "no_valid_pixels"
    assert found.class_name is None
    assert found.scores == {}
    assert found.cost.glimpses == 1


def test_an_image_smaller_than_a_glimpse_is_flagged():
    found = _one(_image(40, 50))
    assert found.status == "ok"
    assert any("upsampled" in words for words in found.warnings)
    assert _one(_image(64, 64)).warnings == ()


def test_wrong_bands_name_the_option():
    with pytest.raises(DomainError, match="bands"):
        _one(_image(bands=1), _model(bands=3))
    found = _one(_image(bands=4), _model(bands=3), bands=(4, 1, 2))
    assert found.status == "ok"
    with pytest.raises(ConfigError, match="bands named: 2"):
        _one(_image(bands=4), _model(bands=3), bands=(4, 1))


def test_an_image_with_more_bands_than_the_training_images_needs_a_choice():
    model = _model(bands=3)
    rule = replace(model.config.input, channels=3)
    model = replace(model, config=replace(model.config, input=rule))
    with pytest.raises(DomainError, match=r"4 bands .* images of 3; .* bands 1,2,3"):
        _one(_image(bands=4), model)
    with pytest.raises(DomainError, match="too few"):
        _one(_image(bands=1), model)
    assert _one(_image(bands=4), model, bands=(3, 2, 1)).status == "ok"
    assert _one(_image(bands=3), model).status == "ok"


def test_an_answer_that_is_no_number_is_an_error():
    model = _model()
    with torch.no_grad():
        model.net.classifier.bias.fill_(float("nan"))
    found = classify(_image(), model, device="cpu", on_error="record")
    assert (found.status, found.class_name) == ("error", None)
    assert "not a number" in found.error


def test_one_source_may_be_given_without_a_list(tmp_path):
    np.save(tmp_path / "x.npy", _image())
    found = classify(_image(), _model(), device="cpu", budget=3)
    assert found.status == "ok"
    found = classify(str(tmp_path / "missing.tif"), _model(), device="cpu", on_error="record")
    assert found.source.endswith("missing.tif")


def test_running_out_of_memory_on_one_image_does_not_end_the_run():
    class Huge(ArrayPyramid):
        def _read(self, level, y, x, height, width):
            raise MemoryError

    found = list(
        classify_all([Huge(_image()), _image()], _model(), device="cpu", budget=3, on_error="record")
    )
    assert [p.status for p in found] == ["error", "ok"]
    assert "out of memory" in found[0].error


def test_top_k_may_leave_out_cells_that_overlap():
    free, apart = (_one(_image(900, 900), policy="top-k", nms=nms) for nms in (1.0, 0.2))
    first = np.array([[r.y, r.x, r.height, r.width] for r in apart.regions if r.depth == 1])
    iou = overlaps(first, first)
    assert (iou[~np.eye(len(first), dtype=bool)] <= 0.2).all()
    assert free.regions != apart.regions


@pytest.mark.parametrize("policy", ["best-first", "random"])
def test_a_search_may_leave_out_regions_that_overlap(policy):
    def most(nms):
        found = _one(_image(900, 900), policy=policy, nms=nms, budget=30)
        rows = [r for r in found.regions if r.depth]
        places = np.array([[r.y, r.x, r.height, r.width] for r in rows])
        same = np.equal.outer(*[[r.depth for r in rows]] * 2) & ~np.eye(len(rows), dtype=bool)
        return overlaps(places, places)[same].max()

    assert most(0.1) <= 0.1 < most(1.0) <= 0.5


def test_values_of_another_type_need_a_rule():
    image = (_image().astype(np.uint16) * 40)[:, :, :1]
    with pytest.raises(DomainError, match="value_range"):
        _one(image)
    scaled = _one(image, value_range=(0, 255 * 40))
    assert scaled.scores == pytest.approx(_one(_image()).scores, abs=1e-5)


def test_an_image_outside_the_domain_warns():
    model = _model(mpp=(0.5, 0.5), low=(10.0,), high=(20.0,))
    words = " / ".join(_one(ArrayPyramid(_image(), mpp=0.25), model).warnings)
    assert "0.25 µm/px" in words
    assert "the image is brighter than the training images: band 1 has a mean of" in words
    assert "does not say" in " ".join(_one(_image(), model).warnings)
    fits = _model(mpp=(0.2, 0.3), low=(100.0,), high=(140.0,))
    assert _one(ArrayPyramid(_image(), mpp=0.25), fits).warnings == ()


def test_a_scale_given_with_the_source_stands_for_the_files_own_and_is_recorded():
    model = _model(mpp=(0.5, 0.5))
    said, given = (_one(Example(ArrayPyramid(_image(), mpp=0.25), mpp=own), model) for own in (None, 0.5))
    assert "0.25 µm/px; the model was trained at 0.5" in " / ".join(said.warnings)
    assert "µm/px" not in " / ".join(given.warnings)
    assert (given.mpp, given.mpp_source) == (0.5, "given")
    assert (said.mpp, given.to_json()["mpp"]) == (0.25, 0.5)
    silent = _one(Example(_image()), model)
    assert silent.mpp is None
    assert "does not say its µm/px" in " / ".join(silent.warnings)


def test_a_source_that_fails_is_recorded_and_the_others_are_not_lost(tmp_path):
    sources = [_image(), tmp_path / "missing.tif", _image(bands=2), _image()]
    found = list(classify_all(sources, _model(), device="cpu", budget=5, on_error="record"))
    assert [p.status for p in found] == ["ok", "error", "ok", "ok"]
    assert "missing.tif" in found[1].error
    assert found[1].source.endswith("missing.tif")
    with pytest.raises(NotFoundError):
        list(classify_all(sources, _model(), device="cpu", budget=5))


def test_a_tile_that_can_not_be_read_is_an_error_not_an_answer():
    class Broken(ArrayPyramid):
        def _read(self, level, y, x, height, width):
            raise ReadError("broken tile")

    found = classify(Broken(_image()), _model(), device="cpu", on_error="record")
    assert (found.status, found.error, found.class_name) == ("error", "broken tile", None)


def test_a_missing_tile_is_counted_and_strict_refuses_it():
    class Sparse(ArrayPyramid):
        def _read(self, level, y, x, height, width):
            pixels = super()._read(level, y, x, height, width)
            if y == 0 and x == 0:
                return Pixels(pixels.data * 0, np.zeros((height, width), bool), 1)
            return pixels

    assert _one(Sparse(_image(1100, 1100))).cost.missing_tiles == 1
    with pytest.raises(ReadError):
        _one(Sparse(_image(1100, 1100)), strict=True)


def test_a_window_outside_the_image_is_a_region_error():
    with pytest.raises(RegionError, match="rows 0 to 700"):
        _one(Example(_image(), region=(600, 0, 200, 100)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "bestfirst"}, "did you mean 'best-first'"),
        ({"on_error": "ignore"}, "on_error"),
        ({"budget": "lots"}, "budget"),
        ({"device": "tpu:9"}, "device"),
        ({"device": "meta"}, "device"),
        ({"device": "cuda:99"}, "CUDA"),
        ({"device": None}, "device"),
        ({"value_range": (0,)}, "value_range"),
        ({"value_range": (0, float("inf"))}, "value range"),
        ({"seed": -1}, "seed"),
        ({"threads": -1}, "threads"),
        ({"nms": 2.0}, "nms"),
    ],
)
def test_an_unusable_option_is_a_config_error(options, words):
    with pytest.raises(ConfigError, match=words):  # at once, not when the first record is asked for
        classify_all([_image()], _model(), **({"device": "cpu"} | options))


def test_stop_is_a_confidence():
    with pytest.raises(ConfigError, match="stop"):
        classify_all([_image()], _model(), stop=1.5)
    assert (
        _one(_image(), budget=3).scores
        == classify(_image(), _model(), device="cpu", stop="off", budget=3).scores
    )
    sure = replace(_model())
    with torch.no_grad():
        sure.net.classifier.bias.copy_(torch.tensor([100.0, 0.0]))
    found = classify(_image(), sure, device="cpu")
    assert (found.cost.stop_reason, found.cost.glimpses) == ("confidence", 2)


def test_a_squashing_model_sees_a_square_and_tells_of_the_image():
    torch.manual_seed(0)
    rule = InputConfig(size=32, bands=(0,), low=(0.0,), high=(255.0,), squash=128, filter="bilinear")
    grid = Grid(3, 0.3, "tnet")  # cells of 38 px, which overhang
    config = ModelConfig(classes=("dark", "light"), input=rule, grid=grid, position="path-sum")
    model = Model(build_model(config).eval(), config, "paper", "abc", k=(9,))
    image = _image(300, 500)
    found = _one(Example(image, region=(20, 40, 240, 400)), model, policy="top-k")
    assert [found.regions[0].y, found.regions[0].x] == [20, 40]
    assert [found.regions[0].height, found.regions[0].width] == [240, 400]
    assert len(found.regions) == 10
    for region in found.regions[1:]:
        assert 20 <= region.y < region.y + region.height <= 260
        assert 40 <= region.x < region.x + region.width <= 440
        assert region.height == pytest.approx(38 * 240 / 128, abs=4)
        assert region.width == pytest.approx(38 * 400 / 128, abs=6)
    assert found.cost.pixels_decoded == 240 * 400
    alone = _one(image[20:260, 40:440].copy(), model, policy="top-k")
    assert alone.scores == pytest.approx(found.scores)


def test_reading_ahead_changes_nothing_but_the_time(tmp_path, monkeypatch):
    from tests.images import write_ome_tiff

    paths = [write_ome_tiff(tmp_path / f"{k}.ome.tif", compression=c) for k, c in enumerate(("jpeg", "lzw"))]
    windows = [Example(paths[0], region=(0, 0, 300, 400)), Example(paths[0], region=(100, 100, 400, 500))]
    sources = [*windows, paths[1], tmp_path / "absent.tif", paths[0]]

    def told():
        found = classify_all(sources, _model(bands=3), device="cpu", stop=None, budget=12, on_error="record")
        records = [record.to_json() for record in found]
        for record in records:
            if record["status"] == "ok":
                record["cost"].pop("seconds")
        return records

    ahead = told()
    assert [record["status"] for record in ahead] == ["ok", "ok", "ok", "error", "ok"]
    monkeypatch.setattr("hiresattn.reading.fetch.CropFetcher.prepare", lambda *_: None)
    assert told() == ahead


def test_a_record_says_what_chose_each_region():
    for options, chosen in (
        ({}, "location"),
        ({"policy": "random"}, "random"),
        ({"policy": "top-k"}, "location"),
    ):
        found = _one(_image(), budget=12, **options)
        assert all(region.scorer is None for region in found.regions if region.parent is None)
        assert {region.scorer for region in found.regions if region.parent is not None} == {chosen}
    assert found.to_json()["regions"][-1]["scorer"] == "location"


def test_random_scores_may_stand_in_for_a_models_and_no_others():
    model = _model()
    found = _one(_image(), model, budget=12, scorer="random", seed=1)
    assert found.scorer == "random"
    assert {region.scorer for region in found.regions if region.parent is not None} == {"random"}
    again = _one(_image(), model, budget=12, scorer="random", seed=1)
    assert [r.y for r in again.regions] == [r.y for r in found.regions]
    plain = _one(_image(), model, budget=12, scorer="location")
    assert [(r.y, r.x) for r in plain.regions] != [(r.y, r.x) for r in found.regions]
    assert [(r.y, r.x) for r in plain.regions] == [
        (r.y, r.x) for r in _one(_image(), model, budget=12).regions
    ]
    with pytest.raises(ConfigError, match=r"trained with the scorer 'location', not 'saol'"):
        _one(_image(), model, scorer="saol")


def test_images_side_by_side_get_the_records_that_they_get_alone(tmp_path):
    sources = [_image(300 + 40 * n, 400) for n in range(14)]
    sources[2:2] = [tmp_path / "missing.tif", ArrayPyramid(np.zeros((500, 500, 1), np.uint8), nodata=0)]
    options = {"device": "cpu", "budget": 9, "stop": 0.502, "on_error": "record"}
    model = _model()
    alone, *others = (
        list(classify_all(sources, model, batch_images=n, **options)) for n in (1, 3, 16, "auto")
    )
    for other in others:
        assert [record.status for record in other] == [record.status for record in alone]
        for one, two in zip(alone, other, strict=True):
            assert [(r.y, r.x, r.parent) for r in two.regions] == [(r.y, r.x, r.parent) for r in one.regions]
            assert two.scores == pytest.approx(one.scores, abs=1e-6)
            assert replace(two.cost, seconds=one.cost.seconds) == one.cost
            assert (two.error, two.cost.stop_reason) == (one.error, one.cost.stop_reason)
    assert [record.status for record in alone[2:4]] == ["error", "no_valid_pixels"]


def test_errors_of_any_type_are_the_source_s_own(monkeypatch):
    def odd(case, *rest, **named):
        if case.sources[0].region[3] == 333:
            raise ZeroDivisionError("odd")
        return to_record(case, *rest, **named)

    monkeypatch.setattr("hiresattn.inference.classify.to_record", odd)
    sources = [_image(), _image(333, 333), _image()]
    options = {"device": "cpu", "budget": 3, "batch_images": 3}
    found = list(classify_all(sources, _model(), on_error="record", **options))
    assert [record.status for record in found] == ["ok", "error", "ok"]
    assert "ZeroDivisionError: odd" in found[1].error
    records = classify_all(sources, _model(), **options)
    assert next(records).status == "ok"
    with pytest.raises(ZeroDivisionError):
        next(records)


def test_the_model_stays_as_it_was():
    model = _model()
    model.net.train()
    records = classify_all([_image()] * 3, model, device="cpu", budget=3)
    assert model.net.training
    next(records)
    assert model.net.training
    assert all(part.training for part in model.net.modules())
    del records
    assert model.net.training
    assert classify(_image(), model, device="cpu", budget=3).scores == pytest.approx(
        classify(_image(), _model(), device="cpu", budget=3).scores
    )


def test_one_source_or_several_are_told_apart():
    with pytest.raises(ConfigError, match="classify_all"):
        classify([_image()], _model())
    with pytest.raises(ConfigError, match="use classify"):
        classify_all(_image(), _model())


def test_too_few_glimpses_for_the_root_regions_are_warned_of():
    found = _one(_image(64, 64 * 20), budget=4)
    assert found.cost.glimpses == 4
    assert max(r.x for r in found.regions) - min(r.x for r in found.regions) > 64 * 12
    assert "4 of them" in " ".join(found.warnings)


def test_a_sparse_file_without_any_tile_has_no_valid_pixels(tmp_path):
    import rasterio

    profile = {"height": 512, "width": 512, "count": 3, "dtype": "uint8", "tiled": True, "nodata": 0}
    place = {
        "blockxsize": 128,
        "blockysize": 128,
        "sparse_ok": True,
        "transform": rasterio.Affine(2, 0, 1, 0, -2, 1),
    }
    with rasterio.open(tmp_path / "empty.tif", "w", driver="GTiff", **profile, **place):
        pass
    assert _one(str(tmp_path / "empty.tif")).status == "no_valid_pixels"


def test_a_given_nodata_value_holds_for_every_source():
    image = np.full((512, 512, 3), 9, np.uint8)
    assert _one(image).status == "ok"
    assert _one(image, nodata=9).status == "no_valid_pixels"
