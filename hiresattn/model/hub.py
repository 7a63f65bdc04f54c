"""Models and encoders from a hub: fetched where that was asked for, never otherwise."""

import json
from collections.abc import Sequence
from pathlib import Path

from hiresattn.errors import BackendMissingError, CheckpointError, HiresattnError, NotFoundError, reason
from hiresattn.files import read_bounded

#: Prefix of a trained model on the hub, and of an encoder there.
MODEL, ENCODER = "hf:", "hf-hub:"
#: Bytes that a STAC item may have.
_MOST_ITEM = 16 << 20


def fetch(name: str, files: Sequence[str], *, asked: str) -> Path | None:
    """Find the first of some files of a repository of the Hugging Face hub in the local cache, else fetch it.

    Args:
        name: ``owner/name``, or ``owner/name@revision``.
        files: Names of files, any of which will do; the best first.
        asked: What the user asked for, for messages.

    Returns:
        The file; None if the repository has none of them.

    Raises:
        BackendMissingError: If huggingface_hub isn't installed.
        NotFoundError: If there is no such repository, it can't be reached, or access must be asked for.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise BackendMissingError(f"{asked} needs huggingface_hub; pip install huggingface_hub") from error
    repository, _, tag = name.partition("@")
    revision = tag or None
    for local in (True, False):
        for file in files:
            try:
                if not local:  # once: a download tries for half a minute to reach the hub
                    get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
                return Path(hf_hub_download(repository, file, revision=revision, local_files_only=local))
            except Exception as error:
                absent = LocalEntryNotFoundError if local else EntryNotFoundError
                unreachable = not local and isinstance(error, LocalEntryNotFoundError)
                if unreachable or not isinstance(error, absent):
                    raise hub_error(asked, repository, error) from error
    return None


def fetch_all(name: str, files: Sequence[str], *, asked: str) -> Path:
    """Find or fetch several files of a repository; see ``fetch``.

    Returns:
        The folder that holds those that there are.
    """
    found = [path for path in (fetch(name, (file,), asked=asked) for file in files) if path is not None]
    if not found:
        raise NotFoundError(f"{asked}: the repository holds none of {', '.join(files)}")
    return found[0].parent


def named_by_item(path: str | Path) -> Path:
    """The model directory whose weights a STAC item (MLM) names.

    Raises:
        NotFoundError: If there is no such file.
        CheckpointError: If it is no item of a model, or its weights aren't files here.
    """
    file = Path(path)
    try:
        item = json.loads(read_bounded(file, _MOST_ITEM))
        assets = [asset for asset in item["assets"].values() if "mlm:model" in asset.get("roles", ())]
        href = str(assets[0]["href"]).removeprefix("file://")
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: there is no such file; check the path") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: no STAC item of a model: no asset has the role mlm:model; give the model directory"
        ) from error
    if "://" in href:
        raise CheckpointError(f"{file}: its weights are at {href}; fetch the model directory, and give that")
    return (file.parent / href).parent


def hub_error(asked: str, repository: str, error: BaseException) -> HiresattnError:
    """What a failed download means and what to do, in one sentence.

    Args:
        asked: What was asked for, as the user wrote it.
        repository: ``owner/name``.
        error: What the hub's client raised.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        why = f"its owner grants access: ask at https://huggingface.co/{repository}, then run `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = "the repository has no such revision; leave out what follows the @, or give another"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = "there is no such repository, or it is private; check the name, or run `hf auth login`"
    elif isinstance(error, errors.HFValidationError):
        why = "no name of a repository; write owner/name"
    elif isinstance(error, errors.HfHubHTTPError) and not isinstance(error, errors.LocalEntryNotFoundError):
        why = f"the hub can't be read ({reason(error)}); try again, or give a local folder"
    else:
        why = (
            "the hub can't be reached, and the local cache doesn't hold it; connect, or fetch it elsewhere and give "
            "the folder"
        )
    return NotFoundError(f"{asked}: {why}")
