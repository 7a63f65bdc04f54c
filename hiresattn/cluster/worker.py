"""What a worker of a cluster does: one case, with a model that its process loads once."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hiresattn.errors import CheckpointError
from hiresattn.inference.options import ClassifyOptions

#: Sessions, encoders and models that a process keeps.
_KEPT = 2
_sessions: "OrderedDict[Any, Any]" = OrderedDict()
_models: dict[str, Any] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class ModelName:
    """Which model a worker needs."""

    path: str | None
    """Where it loads it from; None = it was sent."""
    sha256: str
    """Of its weights, or what else it was sent under."""


class SendModel:
    """Brings a model that lies in the client's memory to every worker, also to those that come later.

    Args:
        key: What it is sent under.
        model: The model.
    """

    def __init__(self, key: str, model: Any) -> None:
        self.name = f"hiresattn-model-{key}"
        self._key, self._model = key, model

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - the name that distributed calls it by
        """Keep it in this process."""
        _models[self._key] = self._model


@dataclass(frozen=True)
class ClassifyCase:
    """Classifies one case.

    Args:
        model: With which model.
        options: How.
    """

    model: ModelName
    options: ClassifyOptions

    def __call__(self, case: Any, topic: str | None) -> Any:
        """The record of a case; whatever is wrong with the case is in it."""
        tell(topic)
        from hiresattn.inference.classify import classify_in

        (record,) = classify_in(session_of(self.model, self.options), [case])
        return record


def tell(topic: str | None) -> None:
    """Say that a task has begun, and where."""
    if topic is not None:
        from distributed import get_worker

        worker = get_worker()
        worker.log_event(topic, {"key": worker.get_current_task(), "worker": worker.address})


def kept(key: Any, make: Callable[[], Any]) -> Any:
    """What this process made for a key; of the last few."""
    with _lock:
        if key not in _sessions:
            _sessions[key] = make()
        _sessions.move_to_end(key)
        while len(_sessions) > _KEPT:
            _sessions.popitem(last=False)
        return _sessions[key]


def session_of(name: ModelName, options: ClassifyOptions) -> Any:
    """The session of a model and options in this process."""
    from hiresattn.inference.session import start_session

    return kept((name, options), lambda: start_session(model_of(name), options))


def model_of(name: ModelName) -> Any:
    """The model of a name.

    Raises:
        CheckpointError: If it is another than the client's, or wasn't sent.
        HiresattnError: If it can't be loaded.
    """
    from hiresattn.card import read_card

    if name.path is None:
        if name.sha256 not in _models:
            raise CheckpointError("the model didn't reach this worker; start again")
        return _models[name.sha256]
    card = read_card(name.path, reference=True)
    if card.sha256 != name.sha256:
        raise CheckpointError(
            f"{name.path}: on this worker it is another model ({card.sha256[:8]}) than where the run was started "
            f"({name.sha256[:8]}); give a path that is the same on all machines"
        )
    return card
