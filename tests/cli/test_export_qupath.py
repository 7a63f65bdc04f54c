"""`export --to qupath`: a file per image, in a folder."""

import json

from hiresattn.inference.lines import json_line
from tests.cli.conftest import prediction


def test_a_file_for_each_image(run, tmp_path):
    records = tmp_path / "records.jsonl"
    some = [prediction("a/1.svs"), prediction("b/1.svs"), prediction("c.svs", status="error", regions=())]
    records.write_text("".join(json_line(record.to_json()) + "\n" for record in some))
    words = ["export", records, "--to", "qupath", "-o", tmp_path / "qupath"]
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, f"2 files in {tmp_path / 'qupath'}\n")
    names = sorted(path.name for path in (tmp_path / "qupath").iterdir())
    assert names == ["a_1.svs.geojson", "b_1.svs.geojson"]
    (root,) = json.loads((tmp_path / "qupath" / names[0]).read_text())["features"]
    assert len(root["properties"]["childObjects"]) == 1
    result = run(*words)
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert run(*words, "--overwrite").exit_code == 0
