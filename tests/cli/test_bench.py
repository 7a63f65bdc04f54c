"""`bench read`: what the JSON holds, and that the table says the same."""

import json

from tests.images import write_ome_tiff, write_svs


def test_json_has_the_keys_that_scripts_rely_on(run, tmp_path):
    path = write_svs(tmp_path / "slide.svs")
    options = ("--pattern", "random", "--crops", "9", "--size", "32", "--json")
    found = json.loads(run("bench", "read", path, *options).stdout)
    assert list(found) == [
        "pattern", "crops", "size", "ours", "loop", "floor", "fused", "speedup_over_loop", "ratio_to_floor",
        "max_abs_difference",
    ]  # fmt: skip
    assert set(found["ours"]) == {"cpu_ms", "wall_ms", "tiles", "unique_tiles", "bytes"}
    assert set(found["loop"]) == {"name", "cpu_ms", "wall_ms"}
    assert set(found["floor"]) == {"decoder", "cpu_ms"}
    assert set(found["fused"]) == {"cpu_ms", "wall_ms", "ratio_to_floor", "max_abs_difference"}
    assert (found["pattern"], found["crops"], found["size"]) == ("random", 9, 32)


def test_the_table_names_the_ways_and_the_ratios(run, tmp_path):
    path = write_ome_tiff(tmp_path / "image.ome.tif")
    text = run("bench", "read", path, "--crops", "9", "--size", "32").stdout
    for part in ("9 crops of 32 px, clustered", "tifffile + zarr", "floor: ", "times as fast as the loop"):
        assert part in text


def test_a_file_that_can_not_be_read_is_one_line_on_stderr(run, tmp_path):
    result = run("bench", "read", tmp_path / "absent.svs")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stdout == ""
