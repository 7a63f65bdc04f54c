"""Files of layers: what ``classify -o`` writes at its end, from the records beside them."""

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
