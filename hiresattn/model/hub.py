"""Models and encoders from a hub: fetched where that was asked for, never otherwise."""

from pathlib import Path

from hiresattn.errors import CheckpointError, NotFoundError


def download(name: str, files: list[str]) -> Path:
    """Fetch files of a repository of the Hugging Face hub, or find them in its cache.

    Args:
        name: ``owner/name``.
        files: Names of the files wanted.

    Returns:
        The directory that holds them.

    Raises:
        CheckpointError: If huggingface_hub isn't installed.
        NotFoundError: If there is no such repository, or it can't be reached.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(f"hf:{name} needs huggingface_hub; pip install huggingface_hub") from error
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).splitlines()[0]
        raise NotFoundError(f"hf:{name}: the hub can't be read: {first}; give a local directory") from error


def check_local(encoder: str, card: Path) -> None:
    """Refuse an encoder that would be fetched: who opens a directory hasn't asked for the network.

    Args:
        encoder: Its name, such as ``hf-hub:owner/name``; names without a hub are fine.
        card: Where it is named, for the message.

    Raises:
        CheckpointError: If it isn't on this machine.
    """
    prefix, _, name = encoder.partition(":")
    if not name:
        return
    try:
        from huggingface_hub import try_to_load_from_cache

        there = prefix in ("hf-hub", "hf_hub") and isinstance(
            try_to_load_from_cache(name, "config.json"), str
        )
    except (ImportError, ValueError):
        there = False
    if not there:
        raise CheckpointError(
            f"{card}: its encoder {encoder!r} isn't on this machine, and nothing is fetched to load a directory; if "
            f"you trust it: huggingface-cli download {name}"
        )
