"""Tasks on a cluster: windows, order, lost workers, guilty cases and innocent ones, time limits; workers are played."""

import math
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from hiresattn.cluster.tasks import Care, Lost, Tasks
from hiresattn.errors import ClusterError, ConfigError

BAD, SLOW = "bad", "slow"


class Future:
    def __init__(self, key, case):
        self.key, self.case, self.status, self.error, self.call = key, case, "pending", None, None
        self.begun = False

    def add_done_callback(self, call):
        self.call = call

    def end(self, status, error=None):
        self.status, self.error = status, error
        self.call(self)

    def result(self):
        return self.case * 2

    def exception(self):
        return self.error

    def release(self):
        pass


class Played:
    """A scheduler with one worker of ``threads`` threads; cases called ``bad`` end it, those beside them with it."""

    def __init__(self, threads=2, allowed_failures=0, resources=()):
        self.threads, self.allowed, self.resources = threads, allowed_failures, dict(resources)
        self.waiting, self.restarted, self.cancelled, self.most, self.status = [], [], [], 0, "running"
        self.scheduler = SimpleNamespace(address="tcp://played")
        self.tried = []
        self.forgets = False

    def scheduler_info(self, n_workers):
        return {"workers": {"a": {"resources": self.resources}, "b": {}} if self.threads else {}}

    def nthreads(self):
        self.work()
        return {"a": self.threads}

    def subscribe_topic(self, topic, handler):
        self.begun = handler

    def unsubscribe_topic(self, topic):
        self.begun = None

    def submit(self, function, case, topic, *, key, pure, retries, resources):
        assert (pure, retries) == (False, 0)
        future = Future(key, case)
        self.tried.append(case)
        self.waiting.append(future)
        self.most = max(self.most, len(self.waiting))
        return future

    def work(self):
        """What is waiting ends, the last first; all that waits beside a bad case is lost with it."""
        waiting, self.waiting = self.waiting, []
        if any(future.case == BAD for future in waiting):
            for future in waiting:
                worker = SimpleNamespace(address="a")
                future.end("error", KilledWorker(future.key, worker, self.allowed))
            return
        for future in reversed(waiting):
            if future.case == SLOW:
                self.waiting.append(future)
                if not future.begun:
                    self.begun((0, {"key": future.key, "worker": "a"}))
                    future.begun = True
            elif isinstance(future.case, Exception):
                future.end("error", future.case)
            else:
                future.end("finished")

    def gather(self, futures):
        if self.forgets:  # the worker that holds them is lost
            self.forgets = False
            for future in futures:
                future.status = "error"
                future.error = KilledWorker(future.key, SimpleNamespace(address="a"), self.allowed)
            raise futures[0].error
        return [future.result() for future in futures]

    def cancel(self, futures, force):
        self.cancelled += futures
        self.waiting = [future for future in self.waiting if future not in futures]

    def restart_workers(self, workers, timeout, raise_for_error):
        self.restarted += workers


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The workers' turn comes at every look at them."""
    monkeypatch.setattr("hiresattn.cluster.tasks._TICK", 0.001)


def run(client, cases, *, ordered=False, **care):
    return list(Tasks(client, None, Care(**care)).run(iter(cases), ordered=ordered))


def test_every_case_has_its_result_and_few_are_submitted_at_a_time():
    client = Played(threads=3)
    done = run(client, range(50))
    assert sorted(done) == [(n, 2 * n) for n in range(50)]
    assert [number for number, _ in done] != list(range(50))
    assert client.most == 6
    assert run(Played(), range(50), ordered=True) == [(n, 2 * n) for n in range(50)]
    assert run(Played(), []) == []


def test_results_in_order_wait_for_a_bounded_number_of_others():
    client = Played(threads=1)
    taken = []

    def cases():
        for number in range(200):
            taken.append(number)
            yield SLOW if number == 0 else number

    running = Tasks(client, None, Care(timeout=0.2)).run(cases(), ordered=True)
    number, lost = next(running)
    assert (number, type(lost)) == (0, Lost)
    assert len(taken) <= 2 * 8 + 4
    assert list(running) == [(n, 2 * n) for n in range(1, 200)]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("allowed", [0, 3])
def test_a_case_that_ends_its_workers_is_named_and_those_beside_it_are_not_lost(ordered, allowed):
    cases = [BAD if number in (3, 4) else number for number in range(20)]
    client = Played(threads=4, allowed_failures=allowed)
    done = dict(run(client, cases, ordered=ordered, retries=1))
    assert sorted(done) == list(range(20))
    assert {n: found for n, found in done.items() if n not in (3, 4)} == {
        n: 2 * n for n in range(20) if n not in (3, 4)
    }
    for number in (3, 4):
        assert "its worker ended" in done[number].why
        assert "alone: " in done[number].why
    assert client.tried.count(BAD) == (8 if allowed == 0 else 6)


def test_a_case_that_takes_too_long_is_given_up_and_its_worker_started_again():
    client = Played()
    done = dict(run(client, [0, SLOW, 2, 3], timeout=0.05))
    assert done.pop(1).why.startswith("took more than 0.05 s")
    assert done == {0: 0, 2: 4, 3: 6}
    assert client.restarted == ["a"]
    assert [future.case for future in client.cancelled] == [SLOW]


def test_what_is_wrong_with_the_work_itself_ends_the_run():
    client = Played()
    with pytest.raises(ConfigError, match="no model"):
        run(client, [ConfigError("no model"), *range(30)])
    assert len(client.tried) < 10
    assert not client.waiting or all(future in client.cancelled for future in client.waiting)


def test_what_was_running_on_a_lost_scheduler_is_submitted_again():
    client = Played(threads=1)
    work, client.lost = client.work, False

    def lose_once():
        if len(client.tried) > 4 and not client.lost:
            client.lost = True
            waiting, client.waiting = client.waiting, []
            for future in waiting:
                future.end("cancelled")
        work()

    client.work = lose_once
    assert sorted(run(client, range(10))) == [(n, 2 * n) for n in range(10)]
    assert client.lost
    assert len(client.tried) > 10


def test_results_that_are_lost_with_their_worker_are_made_again():
    client = Played(threads=2)
    client.forgets = True
    assert sorted(run(client, range(10))) == [(n, 2 * n) for n in range(10)]
    assert len(client.tried) > 10


def test_a_scheduler_that_does_not_come_back_is_an_error():
    client = Played(threads=1)

    def lose():
        client.status = "closed"
        for future in client.waiting:
            future.end("cancelled")

    client.work = lose
    with pytest.raises(ClusterError, match="with resume"):
        run(client, range(10))


def test_resources_that_no_worker_has_are_refused_before_anything_is_submitted(monkeypatch):
    client = Played(resources={"GPU": 1})
    with pytest.raises(
        ConfigError, match="resources GPU=2: none of 2 workers has that; they offer GPU=1; nothing"
    ):
        run(client, range(3), resources={"GPU": 2})
    assert not client.tried
    assert len(run(client, range(3), resources={"GPU": 1})) == 3
    monkeypatch.setattr("hiresattn.cluster.connect._WAIT", 0.2)
    with pytest.raises(ClusterError, match="no worker came"):
        run(Played(threads=0), range(3))


@pytest.mark.parametrize(
    "care", [{"retries": -1}, {"timeout": 0}, {"timeout": math.nan}, {"resources": {"GPU": 0}}]
)
def test_values_that_can_not_be_used_are_refused(care):
    with pytest.raises(ConfigError):
        Care(**care)
