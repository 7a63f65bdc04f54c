"""What goes wrong on a cluster, several times each: nothing is lost, nothing doubled, and the rest is as without it."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import distributed
import numpy as np
import pytest
from PIL import Image

import hiresattn
from hiresattn.card import read_card
from hiresattn.cluster.connect import connected
from hiresattn.cluster.run import lost_record
from hiresattn.cluster.tasks import Care, Lost, Tasks
from hiresattn.cluster.worker import ClassifyCase, ModelName
from hiresattn.inference.options import ClassifyOptions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODEL = Path(hiresattn.__file__).parent / "demo" / "model"
OPTIONS = ClassifyOptions(budget=2, batch_images=1, threads=1, on_error="record")
CASES = 8
#: How often each fault is made; `make faults` makes each 20 times.
TIMES = int(os.environ.get("FAULT_TIMES", "3"))


@pytest.fixture(scope="module")
def client():
    with connected(workers=2) as client:
        yield client


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for number in range(CASES):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 96), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(CASES)]


@pytest.fixture(scope="module")
def clean(images):
    return [without_times(record) for record in hiresattn.classify_all(images, MODEL, OPTIONS)]


def without_times(record):
    facts = record.to_json()
    facts["cost"].pop("seconds")
    return facts


def work(fault=None, guilty=None):
    """What a worker does: classify; and before that, with the guilty case, the fault."""
    classify = ClassifyCase(ModelName(str(MODEL), read_card(MODEL).sha256), OPTIONS)

    def either(case, topic):
        from hiresattn.cluster.worker import tell

        tell(topic)
        if case == guilty:
            fault()
        return classify(case, None)

    return either


def run(client, images, function, **care):
    """The records of a run by number, each there once."""
    found, card = {}, read_card(MODEL, reference=True)
    for number, result in Tasks(client, function, Care(**care)).run(images):
        assert number not in found
        lost = isinstance(result, Lost)
        found[number] = lost_record(images[number], card, result.why) if lost else result
        yield found
    assert sorted(found) == list(range(len(images)))


def last(runs):
    *_, found = runs
    return found


def check(found, clean, guilty=None):
    for number, record in found.items():
        if number == guilty:
            assert record.status == "error"
        else:
            assert without_times(record) == clean[number]


@pytest.mark.parametrize("time_", range(TIMES))
def test_a_worker_is_killed(client, images, clean, time_):
    runs = run(client, images, work(), retries=2)
    for found in runs:
        if len(found) == 1 + time_ % (CASES - 2):
            pids = client.run(os.getpid)
            os.kill(next(iter(pids.values())), signal.SIGKILL)
    check(found, clean)
    client.wait_for_workers(2, timeout=120)


@pytest.mark.parametrize("time_", range(TIMES))
def test_a_source_ends_its_reader(client, images, clean, time_):
    guilty = time_ % CASES
    crash = work(lambda: os.kill(os.getpid(), signal.SIGSEGV), images[guilty])
    found = last(run(client, images, crash, retries=0))
    check(found, clean, guilty)
    assert "its worker ended" in found[guilty].error
    client.wait_for_workers(2, timeout=120)


@pytest.mark.parametrize("time_", range(TIMES))
def test_a_source_hangs(client, images, clean, time_):
    last(run(client, images, work()))  # models are loaded
    guilty = time_ % CASES
    found = last(run(client, images, work(lambda: time.sleep(3600), images[guilty]), timeout=30))
    check(found, clean, guilty)
    assert "took more than 30 s" in found[guilty].error
    client.wait_for_workers(2, timeout=120)


@pytest.mark.parametrize("time_", range(TIMES))
def test_workers_can_write_nothing(client, images, clean, time_):
    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    client.run(limit, 0)
    try:
        check(last(run(client, images, work())), clean)
    finally:
        client.run(limit, resource.RLIM_INFINITY)


@pytest.mark.parametrize("time_", range(TIMES))
def test_a_scheduler_is_killed_and_comes_back(images, clean, time_, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    started = []

    def start(what, *words):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *words, "--no-dashboard"]
        with (tmp_path / f"{what}{len(started)}.log").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path))  # noqa: S603
        return started[-1]

    def both():
        scheduler = start("scheduler", "--port", address.rsplit(":", maxsplit=1)[1])
        start("worker", address, "--nthreads", "1")
        return scheduler

    try:
        scheduler = both()
        with distributed.Client(address, timeout=120) as client:
            for found in run(client, images, work()):
                if len(found) == 1 + time_ % (CASES - 2) and scheduler.poll() is None and len(started) == 2:
                    scheduler.kill()
                    scheduler.wait()
                    started[1].kill()
                    both()
        check(found, clean)
        assert len(started) == 4
    finally:
        for process in started:
            process.kill()
            process.wait()
