"""Training in several processes: two with a half of the batch each move as one with all of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from hiresattn.errors import ConfigError
from hiresattn.training.distributed import Processes, join_processes
from hiresattn.training.options import TrainOptions
from hiresattn.training.sync_norms import sync_norms

ROOT = Path(__file__).parents[2]
#: One step of two processes, or of one, on the same images: gradients, what the weights became, and the rest.
STEP = """
import json, sys
from dataclasses import replace
import numpy as np, torch
from hiresattn.config import InputConfig, LocationConfig, ModelConfig
from hiresattn.geometry import Grid
from hiresattn.datasets.example import Example
from hiresattn.model.build import build_model
from hiresattn.model.select import TopK
from hiresattn.training.augment import draw_augmentations
from hiresattn.training.data import Loader
from hiresattn.training.options import TrainOptions
from hiresattn.training.state import State
from hiresattn.training.losses import batch_loss, traverse
from hiresattn.training.optim import optimizer_of, step
from hiresattn.training.distributed import join_processes
from hiresattn.training.sync_norms import sync_norms
from safetensors.torch import save_file

torch.set_num_threads(1)
rng = np.random.default_rng(0)
rule = InputConfig(size=16, bands=(0,), low=(0.0,), high=(255.0,))
config = ModelConfig(classes=("a", "b"), input=rule, grid=Grid(3, 0.5), location=LocationConfig(hidden=8))
images = lambda *sides: [
    Example(rng.integers(0, 255, (side, side, 1)).astype(np.uint8), "ab"[i % 2]) for i, side in enumerate(sides)
]
cases = {
    name: (replace(TrainOptions(threads=0, clip=1.0), estimator=name), images(32, 32, 32, 32, 32))
    for name in ("straight-through", "reinforce", "reinforce-loo")
}
cases["accumulate"] = (TrainOptions(threads=0, accumulate=2, clip=None), images(32, 32, 32, 32, 32))
cases["mixed"] = (TrainOptions(threads=0), images(64, 16, 64, 16, 64))  # one process has nothing to choose
boxed = lambda boxes: [
    Example(rng.integers(0, 255, (side, side, 1)).astype(np.uint8), "ab"[i % 2], boxes=boxes[i])
    for i, side in enumerate((64, 32, 64, 64, 32))
]
some = [[(4, 4, 8, 8), (40, 40, 6, 6)], None, [(30, 8, 9, 9)], [(1, 50, 9, 9)], [(20, 20, 6, 6)]]  # unequal looks
quiet = TrainOptions(threads=0, clip=None)
cases["boxes"] = (quiet, boxed(some))
cases["reinforce uneven"] = (replace(quiet, estimator="reinforce"), images(64, 16, 64, 64, 32))
cases["siblings"] = (replace(quiet, estimator="reinforce-loo", k=(1,)), images(64, 16, 64, 64, 32))
for scorer in ("mask", "evidence", "saol", "ltpa", "oaa"):
    cases[scorer] = (replace(quiet, scorer=scorer, cutmix=0.4 * (scorer == "saol")), boxed(some))
cases["norms"] = (replace(quiet, encoder="small-bn", sync_batch_norms=True), boxed(some))
cases["norms few"] = (cases["norms"][0], images(32))
cases["few"] = (TrainOptions(threads=0), images(32))  # one process has no image at all
out, said = {}, {}
with join_processes("cpu") as processes:
    for name, (options, examples) in cases.items():
        torch.manual_seed(7 + processes.rank)  # the second process begins with other weights, and takes the first's
        net = build_model(replace(config, scorer=options.scorer, encoder=options.encoder)).train()
        processes.broadcast_weights(net)
        loader = Loader(rule, config.grid, threads=0)
        samples, state, optimizer = loader.measure(examples, "ab"), State(), optimizer_of(net, options)
        for part in range(options.accumulate):
            k = options.k if name == "siblings" else (2,)
            norms = sync_norms(processes, net, options, size=16, bands=1)
            look = lambda batch: traverse(net, batch, TopK(), k, options)

            def work(batch):
                seen = norms.traversed(batch, look) if norms else look(batch)
                return seen, batch_loss(net, batch, seen, options, baseline=state.baseline, progress=0.9)

            augmentations = draw_augmentations(samples, loader.config, options, np.random.default_rng(1))
            if name == "saol":  # pasted into images of one process only
                assert {i % 2 for i, one in enumerate(augmentations) if one.cutmix is not None} == {0}
            found, _ = loader.process(processes.shard(samples), work, processes.shard(augmentations))
            seen, own = found or (None, None)
            extra = norms.finish(seen) if norms else None
            loss, count, parts = step(
                net, optimizer, own, options, state, processes=processes, part=part, extra=extra
            )
        for key, buffer in net.named_buffers() if options.sync_batch_norms else net.scorer.named_buffers():
            out[f"{name}.moved.{key}"] = buffer.clone()
        for key, weight in net.named_parameters():
            out[f"{name}.moved.{key}"] = weight.detach().clone()
            if weight.grad is not None:
                out[f"{name}.grad.{key}"] = weight.grad.clone()
        said[name] = [loss, count, state.baseline]
        said[name + " parts"] = processes.sum_named(parts)
    said["sum"] = processes.sum([1.0, processes.rank])
    said["named"] = processes.sum_named({"both": 1.0 + processes.rank, f"of {processes.rank}": 3.0})
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(processes.rank)
    processes.average_batch_norms(norm)
    said["norm"] = norm.running_mean.tolist()
save_file(out, sys.argv[1] + f"{processes.rank}.safetensors")
open(sys.argv[1] + f"{processes.rank}.json", "w").write(json.dumps(said))
"""


def _start(count, *words):
    """Run Python ``count`` times as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def _ended(running):
    """What each said, and its exit status."""
    return [(process.communicate(timeout=240)[1], process.returncode) for process in running]


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """What a step left: of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("steps")
    for count, name in ((1, "one"), (2, "two")):
        for said, code in _ended(_start(count, "-c", STEP, folder / name)):
            assert code == 0, said
    return [
        (load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text()))
        for name in ("one0", "two0", "two1")
    ]


JOINT = ["straight-through", "reinforce", "reinforce-loo", "accumulate", "few", "boxes", "reinforce uneven", "siblings",
         "mask", "evidence", "saol", "ltpa", "oaa", "norms", "norms few"]  # fmt: skip


@pytest.mark.parametrize("name", JOINT)
def test_two_processes_have_the_gradients_of_one_with_the_joint_batch(steps, name):
    (one, said), (first, _), (second, _) = steps
    keys = [key for key in one if key.startswith(f"{name}.grad.")]
    assert len(keys) > 20
    assert any("scorer" in key for key in keys)
    assert {key for key in first if key.startswith(f"{name}.grad.")} == set(keys)
    for key in keys:
        assert torch.equal(first[key], second[key])
        assert torch.allclose(one[key], first[key], atol=1e-5, rtol=0), key
    assert max(float(one[key].abs().max()) for key in keys) > 1e-2
    for key in (key for key in one if key.startswith(f"{name}.moved.")):
        assert torch.equal(first[key], second[key])
        if "running_" in key:
            assert torch.allclose(one[key], first[key], atol=1e-5), key
    for _, found in steps[1:]:
        assert found[name] == pytest.approx(said[name], abs=1e-5)
        assert found[f"{name} parts"] == pytest.approx(said[f"{name} parts"], abs=1e-5)
    wanted = {
        "boxes": "location",
        "saol": "paste_where",
        "evidence": "evidence",
        "mask": "area",
        "oaa": "hybrid",
    }
    assert said[f"{name} parts"].get(wanted.get(name, ""), 1) > 0
    assert said[name][1] == (1 if "few" in name else 5)


def test_looks_that_end_at_different_depths_hold_nobody_up(steps):
    _, (first, said), (second, also) = steps
    assert said == also
    moved = [key for key in first if key.startswith("mixed.moved.")]
    assert moved
    assert all(torch.equal(first[key], second[key]) for key in moved)
    assert any(key.startswith("mixed.grad.scorer") for key in second)  # though it chose nothing itself


def test_what_is_summed_or_averaged_is_of_all_processes(steps):
    for _, said in steps[1:]:
        assert said["sum"] == [2.0, 1.0]
        assert list(said["named"].items()) == [("both", 3.0), ("of 0", 3.0), ("of 1", 3.0)]
        assert said["norm"] == [0.5, 0.5]


@pytest.mark.parametrize("bad", [{"coarse_encoder": True}, {"on_error": "skip"}])
def test_batch_norms_of_all_processes_need_equal_passes(bad):
    options = TrainOptions(sync_batch_norms=True, **bad)
    with pytest.raises(ConfigError, match=next(iter(bad))):
        sync_norms(Processes(torch.device("cpu")), None, options, size=16, bands=1)


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("cpu") as processes:
        assert processes == Processes(torch.device("cpu"))
        assert processes.shard([1, 2, 3]) == [1, 2, 3]
        assert processes.sum([0.1, 2]) == [0.1, 2]
        assert processes.sum_named({"a": 0.1}) == {"a": 0.1}
    assert not torch.distributed.is_initialized()


def test_processes_that_cant_meet_say_how_to_start_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"), join_processes("cpu"):
        pass


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for number in range(20):
        pixels = rng.integers(90, 160, (48, 48)).astype(np.uint8)
        pixels[8:24, 8:24] = 255 * (number % 2)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'dark' if number % 2 else 'light'},{'val' if number > 14 else 'train'}")
    path = tmp_path / "m.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


SMALL = Path(__file__).parents[1] / "small.toml"
QUICK = f"--config {SMALL} --device cpu --threads 1 --batch-size 6 --value-range 0,255"


#: The command; its first process is killed in the second epoch.
STRUCK = """
import os, signal, sys
from pathlib import Path
from hiresattn.training.data import Loader
from hiresattn_cli.main import main

metrics = Path(sys.argv[sys.argv.index("-o") + 1]) / "metrics.csv"
attempt = Loader.process
def struck(self, *words, **named):
    if os.environ["RANK"] == "0" and metrics.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt(self, *words, **named)
Loader.process = struck
main()
"""


def _words(manifest, folder, epochs):
    return f"train {manifest} -o {folder} --epochs {epochs} {QUICK}".split()


def _train(count, manifest, folder, epochs, *more):
    return _start(count, "-m", "hiresattn_cli.main", *_words(manifest, folder, epochs), *more)


def _kept(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_two_processes_train_one_model_and_a_killed_run_ends_as_an_uninterrupted_one(manifest, tmp_path):
    (said, code), (also, other) = _ended(_train(2, manifest, tmp_path / "whole", 12))
    assert (code, other) == (0, 0), said + also
    assert also == ""
    assert said.count("epoch ") == 12 + 1  # and which one is kept
    assert "epoch 12/12, 18 images" in said
    whole = {"card.json", "curves.png", "metrics.csv", "model.safetensors", "state.safetensors"}
    assert _kept(tmp_path / "whole") >= whole

    (_, code), (also, other) = _ended(_start(2, "-c", STRUCK, *_words(manifest, tmp_path / "parts", 12)))
    assert (code, other) == (-signal.SIGKILL, 1)
    assert "another process of this run ended" in also
    assert "Traceback" not in also
    for said, code in _ended(_train(2, manifest, tmp_path / "parts", 12, "--resume")):
        assert code == 0, said
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_with_another_number_of_processes_as_it_would_have(manifest, tmp_path):
    config = tmp_path / "how.toml"
    config.write_text(SMALL.read_text() + 'select = "best"\n')  # what is sampled differs between processes

    def train(count, folder, epochs, *more):
        words = _words(manifest, tmp_path / folder, epochs)
        words[words.index(str(SMALL))] = config
        for said, code in _ended(_start(count, "-m", "hiresattn_cli.main", *words, *more)):
            assert code == 0, said

    def ended(folder):
        with safe_open(tmp_path / folder / "state.safetensors", framework="pt") as stored:
            state = json.loads(stored.metadata()["state"])
            return state, {key: stored.get_tensor(key) for key in stored.keys() if key.startswith("net.")}  # noqa: SIM118

    found = {}
    for counts in ((1, 1), (2, 1), (1, 2)):
        folder = f"{counts[0]}-{counts[1]}"
        train(counts[0], folder, 2)
        train(counts[1], folder, 4, "--resume")
        found[counts] = ended(folder)
    wanted, weights = found.pop((1, 1))
    for state, others in found.values():
        for key in ("epoch", "stage", "stage_epochs", "drawn"):
            assert state[key] == wanted[key]
        losses = [[record["loss"] for record in one["records"]] for one in (state, wanted)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        flat, same = (torch.cat([one[key].flatten().float() for key in weights]) for one in (others, weights))
        assert float((flat - same).norm() / same.norm()) < 1e-3


@pytest.mark.slow
def test_an_image_that_one_process_cant_read_is_skipped_or_ends_all(manifest, tmp_path):
    file = tmp_path / "2.png"
    file.write_bytes(file.read_bytes()[:200])
    (said, code), (also, other) = _ended(_train(2, manifest, tmp_path / "a", 2, "--on-error", "skip"))
    assert (code, other) == (0, 0), said + also
    assert "skipped" in said
    assert (said + also).count("Skipped:") >= 1
    (said, code), (also, other) = _ended(_train(2, manifest, tmp_path / "b", 2))
    assert (code, other) == (1, 1), said + also
    assert "2.png" in said + also
    assert "Traceback" not in said + also
