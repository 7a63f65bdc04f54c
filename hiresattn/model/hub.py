"""Models and encoders from a hub: fetched where that was asked for, never otherwise."""

from collections.abc import Sequence
from pathlib import Path

from hiresattn.errors import BackendMissingError, HiresattnError, NotFoundError, reason

#: Prefix of a trained model on the hub, and of an encoder there.
MODEL, ENCODER = "hf:", "hf-hub:"


def fetch(name: str, file: str, *, prefix: str) -> Path | None:
    """Find a file of a repository of the Hugging Face hub in its local cache, or fetch it.

    Args:
        name: ``owner/name``, or ``owner/name@revision``.
        file: Name of the file.
        prefix: What the user wrote before ``name``, for messages.

    Returns:
        The file; None if the repository has none of this name.

    Raises:
        BackendMissingError: If huggingface_hub isn't installed.
        NotFoundError: If there is no such repository, it can't be reached, or access must be asked for.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise BackendMissingError(
            f"{prefix}{name} needs huggingface_hub; pip install huggingface_hub"
        ) from error
    repository, _, revision = name.partition("@")
    try:
        for local in (True, False):
            try:
                return Path(
                    hf_hub_download(repository, file, revision=revision or None, local_files_only=local)
                )
            except LocalEntryNotFoundError:
                if not local:
                    raise
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise hub_error(f"{prefix}{name}", error) from error
    return None


def fetch_all(name: str, files: Sequence[str], *, prefix: str) -> Path:
    """Find or fetch several files of a repository; see ``fetch``.

    Returns:
        The folder that holds those that there are.
    """
    found = [path for path in (fetch(name, file, prefix=prefix) for file in files) if path is not None]
    if not found:
        raise NotFoundError(f"{prefix}{name}: the repository holds none of {', '.join(files)}")
    return found[0].parent


def hub_error(asked: str, error: BaseException) -> HiresattnError:
    """What a failed download means and what to do, in one sentence.

    Args:
        asked: What was asked for, as the user wrote it.
        error: What the hub's client raised.
    """
    from huggingface_hub import errors

    address = f"https://huggingface.co/{asked.partition(':')[2].partition('@')[0] or asked}"
    if isinstance(error, errors.GatedRepoError):
        why = f"its owner grants access: ask for it at {address}, then run `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        why = "the repository has no such revision; leave out what follows the @, or give another"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = "there is no such repository, or it is private; check the name, or run `hf auth login`"
    elif isinstance(error, errors.HFValidationError):
        why = "no name of a repository; write owner/name"
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)):
        why = (
            "the hub can't be reached, and the local cache doesn't hold it; connect, or fetch it elsewhere and give "
            "the folder"
        )
    else:
        why = f"the hub can't be read ({reason(error)}); try again, or give a local folder"
    return NotFoundError(f"{asked}: {why}")
