"""Classifying on a cluster gives what one process gives."""

from pathlib import Path

import distributed
import numpy as np
import pytest
from PIL import Image

import hiresattn
import hiresattn.cluster
from hiresattn.checkpoint import load_model
from hiresattn.cluster import worker
from hiresattn.cluster.connect import connected
from hiresattn.datasets.cases import Case
from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError, ClusterError, ConfigError

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
HOW = {"budget": 2, "batch_images": 1, "threads": 1, "on_error": "record"}


@pytest.fixture(scope="module")
def client():
    how = {"dashboard": False, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, scheduler_kwargs=how, resources={"CPU": 1}
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    paths = [str(folder / f"{number}.png") for number in range(5)]
    pixels = np.random.default_rng(9).integers(0, 255, (80, 96), np.uint8)
    return [*paths, Case("A", paths[:2]), Case("B", paths[3:4]), pixels, str(folder / "absent.png")]


def without_times(record):
    facts = record.to_json()
    facts["cost"].pop("seconds")
    return facts


def test_records_are_those_of_one_process_in_order_or_as_they_come(client, sources):
    alone = [without_times(record) for record in hiresattn.classify_all(sources, MODEL, **HOW)]
    found = [*hiresattn.cluster.classify(sources, MODEL, client, ordered=True, resources={"CPU": 1}, **HOW)]
    assert [*map(without_times, found)] == alone
    found = [
        without_times(record)
        for record in hiresattn.cluster.classify(sources, load_model(MODEL), client, **HOW)
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, alone))


def test_a_model_is_loaded_once_in_a_process(client, sources, monkeypatch):
    loads = []
    real = worker.model_of
    monkeypatch.setattr(worker, "model_of", lambda name: loads.append(name) or real(name))
    worker._sessions.clear()
    assert len([*hiresattn.cluster.classify(sources, MODEL, client, **HOW)]) == len(sources)
    assert len(loads) == 1


def test_another_model_under_the_same_path_ends_the_run(client, sources, monkeypatch):
    monkeypatch.setattr(worker, "_sessions", type(worker._sessions)())
    monkeypatch.setattr("hiresattn.cluster.run.ModelName", lambda path, _: worker.ModelName(path, "f" * 64))
    with pytest.raises(CheckpointError, match="on this worker it is another model"):
        list(hiresattn.cluster.classify(sources, MODEL, client, **HOW))


def test_what_cannot_be_had_is_refused(client, sources):
    with pytest.raises(ConfigError, match="they offer CPU=1"):
        next(hiresattn.cluster.classify(sources, MODEL, client, resources={"GPU": 1}))
    with pytest.raises(ConfigError, match="budgett"):
        next(hiresattn.cluster.classify(sources, MODEL, client, budgett=3))


def test_a_scheduler_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr("hiresattn.cluster.connect._WAIT", 0.2)
    with pytest.raises(ClusterError, match="no scheduler answers there"), connected("tcp://127.0.0.1:9"):
        pass


def test_an_evaluation_on_a_cluster_is_that_of_one_process(client, sources):
    examples = [Example(path, label, split="test") for path, label in zip(sources[:3], "010", strict=True)]
    how = {"budget": 2, "bootstrap": 10, "threads": 1}
    alone = hiresattn.evaluate(MODEL, examples, budgets=(1,), **how)
    found = hiresattn.evaluate(
        MODEL, examples, budgets=(1,), classify=hiresattn.cluster.classifier(client), **how
    )
    assert found.classified == alone.classified == 3
    for name, measured in found.metrics.items():
        assert measured.value == pytest.approx(alone.metrics[name].value, abs=1e-5), name
    assert [point.accuracy for point in found.curve] == [point.accuracy for point in alone.curve]
