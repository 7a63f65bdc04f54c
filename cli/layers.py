"""Where ``classify -o`` writes: the file of records, and that of layers, made of them at its end."""

from pathlib import Path

import click

from hiresattn.errors import ConfigError, HiresattnError, WriteError

#: What records are written as: the name of each, in help.
SUFFIXES = ".gpkg, .parquet, .fgb, .geojson, .geojsonl or .csv"


class LayersFile:
    """A file of layers, and the file of records that it is made from.

    Args:
        path: The file.
        resume: Whether the records that are there are gone on with.
        overwrite: Whether what is there is replaced.

    Raises:
        ConfigError: If something is there and neither is asked for, or there are no records to go on with.
        BackendMissingError: If a package that it needs isn't installed.
    """

    def __init__(self, path: str, *, resume: bool, overwrite: bool) -> None:
        from hiresattn.geo.outputs import check_layers, files_of
        from hiresattn.inference.lines import refuse_filled

        self._path = Path(path)
        self.records = str(self._path.with_suffix(".jsonl"))
        """The file of records."""
        check_layers(path)
        for file in files_of(self._path):
            if resume and file.exists() and not Path(self.records).exists():
                raise ConfigError(
                    f"{file}: is there, and its records ({self.records}) aren't, so that nothing can be gone on with; "
                    "give overwrite, or another file"
                )
            refuse_filled(file, resume=resume, overwrite=overwrite)

    def write(self, verbosity: int) -> None:
        """Write the layers of all records.

        Raises:
            WriteError: If that fails; the records stay.
        """
        from hiresattn.geo.outputs import export
        from hiresattn.inference.read_records import read_records

        try:
            files = export(read_records(self.records), self._path, overwrite=True)
        except HiresattnError as error:
            raise WriteError(
                f"{error}; all records are in {self.records}: hiresattn export {self.records} -o {self._path} makes "
                "the layers of them"
            ) from error
        if verbosity >= 0:
            click.echo(f"{' and '.join(map(str, files))}, from the records in {self.records}", err=True)


def checked_output(
    output: str | None, *, resume: bool, overwrite: bool, dry_run: bool
) -> tuple[str | None, LayersFile | None]:
    """The file of records (None = stdout), and that of layers; what can't be written is refused before all else."""
    if output is None or output == "-":
        if resume or overwrite:
            raise click.UsageError(f"--{'resume' if resume else 'overwrite'} is for a file; name it with -o")
        return None, None
    layers = _layers(output, resume=resume, overwrite=overwrite, dry_run=dry_run)
    output = layers.records if layers else output
    if resume and dry_run:
        raise click.UsageError("--dry-run classifies nothing that --resume could go on with")
    from hiresattn.inference.lines import refuse_filled
    from hiresattn.inference.records_file import check_suffix
    from hiresattn.report.results import is_results_folder

    if is_results_folder(output):
        if dry_run:
            raise click.UsageError("--dry-run writes JSON lines; give a name that ends in .jsonl")
        return output, None
    check_suffix(output)
    refuse_filled(output, resume=resume, overwrite=overwrite)
    return output, layers


def _layers(output: str, *, resume: bool, overwrite: bool, dry_run: bool) -> LayersFile | None:
    """The file of layers, where one is asked for."""
    from hiresattn.geo.outputs import is_layers

    if not is_layers(output):
        return None
    if dry_run:
        raise click.UsageError("--dry-run writes JSON lines; give a name that ends in .jsonl")
    return LayersFile(output, resume=resume, overwrite=overwrite)
