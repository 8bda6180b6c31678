# SPDX-License-Identifier: Apache-2.0
"""A data set that is named now and read later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.earlier_run import require_unseen
from dual_skd.data.records.training_records import load_records


class DataSource:
    """A data set that is read when it is first asked for more than its classes.

    A network needs to know the classes, and there may be no image where it is built: on the server of a federation, for
    one. Everything else is that of the :class:`DataList` that :attr:`read` returns.

    Args:
        dataset_dir: see :func:`load_records`.
        class_names: the classes in label order, where they are known before the images; the labels have to be among
            them.
        read: reads the data set, as ``load_records`` does.
        weights: files of weights, by the option that names them, that mustn't have learned from validation or test
            images, see :func:`~dual_skd.data.records.earlier_run.require_unseen`.
        options: of ``read``.
    """

    def __init__(
        self,
        dataset_dir: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        read: Callable[..., DataList] = load_records,
        weights: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._known = tuple(class_names or ())
        self._load = read
        self._weights = dict(weights or {})
        self._options = {"dataset_dir": dataset_dir, "class_names": class_names, **options}

    @cached_property
    def read(self) -> DataList:
        """The data set, read once."""
        return self._read()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._known or self.read.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def elsewhere(self, dataset_dir: str | Path, **options: Any) -> DataList:
        """Another data set, read with the same options but those given."""
        return self._read(dataset_dir=dataset_dir, **options)

    def _read(self, **options: Any) -> DataList:
        data = self._load(**self._options | options)
        require_unseen(data, self._weights)
        return data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.read, name)
