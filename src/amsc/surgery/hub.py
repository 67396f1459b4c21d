"""Saved models on the Hugging Face hub: two files, of which neither holds code."""

from pathlib import Path

from amsc.errors import RunFolderError, SettingsError

__all__ = ["HUB", "from_hub"]

HUB = "hf:"
FILES = ("config.json", "model.safetensors")


def from_hub(name: str) -> Path:
    """The folder of the local cache that holds the model "hf:OWNER/NAME", or "hf:OWNER/NAME@REVISION"; it is downloaded
    if need be, its two files alone.

    Raises:
        SettingsError: huggingface_hub is missing, or the name is not of that form.
        RunFolderError: the hub does not give it.
    """
    repository, _, revision = name.removeprefix(HUB).partition("@")
    owner, slash, own = repository.partition("/")
    if not (owner and slash and own) or "/" in own:
        raise SettingsError(f"expected a model on the hub as hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {name!r}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise SettingsError("models on the hub need the package huggingface_hub: pip install 'amsc[hub]'") from error
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:  # of the hub, of its cache, or of the network
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFolderError(
            f"{name} cannot be had from the hub ({type(error).__name__}: {words}); check the name and the network, or "
            "give a folder"
        ) from error
