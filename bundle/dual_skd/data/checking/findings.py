# SPDX-License-Identifier: Apache-2.0
"""Checks a data set before any training: bad files, leaks, contradicting labels, shortcuts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dual_skd.data.checking.finding_kinds import KINDS, OF_FILES, ORDER
from dual_skd.data.checking.outliers import Oddity, find_oddities, stretching
from dual_skd.data.checking.shortcuts import find_shortcuts
from dual_skd.data.near_duplicates.finder import PROBABLE_SIMILARITY, SIMILARITY, NearDuplicate, NearDuplicateFinder
from dual_skd.data.near_duplicates.signature_cache import Signatures
from dual_skd.data.reading.formats import CONVERTIBLE, FORMATS, WORKBOOKS, content_of, not_read
from dual_skd.data.reading.inspection import FileFacts, inspect_all
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.image_files import is_junk
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.data.records.splitting import divide, far_from_asked
from dual_skd.data.records.unlabelled_records import ALL_KNOWN, Found, leave_out_copies
from dual_skd.options import read
from dual_skd.options.data import ReadOptions
from dual_skd.utils.wording import counted

TEST_FRACTION = 0.2  # share of the images that training takes as test set where no split is given
NEARLY_ALL = 0.9  # share of images with other dimensions from which the option is wrong, not the images
IMBALANCE = 10  # ratio of the images of the largest class to those of a rare one
COLUMNS = ("image", "split", "label", "kind", "severity", "detail", "remedy", "twin")


@dataclass(frozen=True)
class Group:
    """All findings of one kind, with the words that sum them up."""

    kind: str
    severity: str
    headline: str
    example: str
    offenders: Sequence[dict]

    @property
    def sentence(self) -> str:
        sentence = f"{self.headline}, for example {self.example}" if self.example else self.headline
        return sentence if sentence.endswith("?") else f"{sentence}."

    @property
    def remedies(self) -> list[str]:
        """What to do, most frequent advice first."""
        return [remedy for remedy, _ in Counter(one["remedy"] for one in self.offenders).most_common() if remedy]


@dataclass(frozen=True)
class Findings:
    """Results of a check; ``errors`` and ``warnings`` put them in sentences.

    Args:
        counts: split -> images per class name.
        offenders: one dict with the keys of :data:`COLUMNS` per image and kind; "image" is "" for findings about the
            whole set.
        twins: near duplicates, {"image", "split", "label", "twin", "twin_split", "twin_label", "exact", "similarity"}.
        shared_patients: {"patient", "splits"} of patients in more than one split.
        notes: sentences on what is good to know and no fault.
        facts: of every file, by its locator.
    """

    counts: dict[str, dict[str, int]]
    offenders: list[dict] = field(default_factory=list)
    twins: list[dict] = field(default_factory=list)
    shared_patients: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: Mapping[str, FileFacts] = field(default_factory=dict, repr=False)

    @property
    def unreadable(self) -> list[dict]:
        """{"image", "split", "problem"} of every file that training can't use."""
        return [
            {"image": one["image"], "split": one["split"], "problem": one["detail"]}
            for one in self.offenders
            if one["kind"] in OF_FILES
        ]

    @property
    def leaks(self) -> list[dict]:
        """Near duplicates in different splits."""
        return [pair for pair in self.twins if pair["split"] != pair["twin_split"]]

    @property
    def conflicts(self) -> list[dict]:
        """Near duplicates with different labels."""
        return [pair for pair in self.twins if pair["label"] != pair["twin_label"]]

    @property
    def errors(self) -> list[str]:
        """Sentences on what spoils a result."""
        return [group.sentence for group in self.groups("error")]

    @property
    def warnings(self) -> list[str]:
        """Sentences on what doesn't keep a user from training."""
        return [group.sentence for group in self.groups("warning")]

    @property
    def ok(self) -> bool:
        return not any(one["severity"] == "error" for one in self.offenders)

    def groups(self, severity: str) -> list[Group]:
        """The findings of one severity, kind by kind, the worst kinds first."""
        found: dict[tuple[str, str], list[dict]] = {}
        for one in self.offenders:
            if one["severity"] == severity:
                kind, part = one["kind"], ""
                if kind in ("data_set", "shortcut", "doubt"):  # a sentence each
                    part = one["detail"]
                elif kind.startswith("twin"):  # leaks of test and of validation images are two groups
                    part = one["split"]
                found.setdefault((kind, part), []).append(one)
        return [
            Group(kind, severity, *self._words(kind, members), members)
            for (kind, _), members in sorted(found.items(), key=lambda item: ORDER[item[0][0]])
        ]

    def as_dict(self) -> dict:
        """Plain types, for a JSON file."""
        names = "ok errors warnings notes counts unreadable shared_patients twins offenders"
        return {name: getattr(self, name) for name in names.split()}

    def _words(self, kind: str, members: Sequence[dict]) -> tuple[str, str]:
        """(headline, example) of a group."""
        first, count = members[0], len(members)
        example = f"{first['image']}: {first['detail']}" if first["image"] else first["detail"]
        if kind in ("data_set", "doubt", "shortcut"):
            return f"{first['detail'][0].upper()}{first['detail'][1:].removesuffix('.')}", ""
        if kind in ("twin_across_splits", "twin_within_split"):
            across = kind == "twin_across_splits"
            pairs = [pair for pair in self.twins if pair["split"] == first["split"]]
            return _pairs_in_words([pair for pair in pairs if (pair["split"] != pair["twin_split"]) == across])
        if kind == "shared_patient":
            patient, count = self.shared_patients[0], len(self.shared_patients)
            example = f"{patient['patient']} in {' and '.join(patient['splits'])}"
        elif kind == "label_conflict":
            pair, count = self.conflicts[0], len(self.conflicts)
            example = f"{pair['image']} ({pair['label']}) and {pair['twin']} ({pair['twin_label']})"
        return counted(count, KINDS[kind].one, KINDS[kind].many), example


def check_records(
    data: DataList,
    *,
    finder: NearDuplicateFinder | None = None,
    facts: Mapping[str, FileFacts] | None = None,
    known: Sequence[Oddity] = (),
    twins: bool = True,
) -> Findings:
    """Opens every image and looks for what would spoil a result.

    Args:
        data: a data set as given, loaded with ``keep_twins=True``.
        finder: signatures of all its images; computed when not given.
        facts: locator -> facts of every image; computed when not given.
        known: what was found while the set was loaded.
        twins: whether to look for near duplicates.
    """
    records = [record for split in SPLITS for record in data.splits[split]]
    images = [record.image for record in records]
    unlabelled = [record.image for record in data.unlabelled]
    everything = [*images, *unlabelled]
    signatures = Signatures(everything, spatial_dims=data.spatial_dims) if twins and finder is None else None
    if facts is None:
        facts = inspect_all(everything, data.spatial_dims, also=signatures.add if signatures else None)
    usable = [record for record in records if not facts[record.image].problem]
    of_usable = [facts[record.image] for record in usable]
    collector = _Collector(data)
    collector.add_oddities(known)
    for one in (facts[image] for image in everything):
        if one.problem:
            collector.add(one.problem, one.image, one.detail, remedy=one.remedy)
    for doubt in [*data.doubts, *_doubts_on_test_set(data)]:
        collector.add("doubt", "", doubt)
    collector.add_classes()
    shared = collector.add_shared_patients()
    pairs, notes = [], [note] if (note := stretching(of_usable)) else []
    if twins and usable:
        images = [record.image for record in usable]
        finder = finder or NearDuplicateFinder(images, spatial_dims=data.spatial_dims, signatures=signatures)
        pairs = collector.add_near_duplicates(finder, images)
        with_others = [*usable, *(record for record in data.unlabelled if not facts[record.image].problem)]
        notes += collector.add_copies_without_labels(with_others)
    collector.add_oddities(find_oddities(of_usable))
    for shortcut in find_shortcuts(usable, of_usable, data.class_names):
        collector.add("shortcut", "", shortcut.sentence, label=shortcut.label, remedy=shortcut.remedy)
    collector.add_other_files()
    return Findings(
        counts={split: dict(zip(data.class_names, data.class_counts(split), strict=True)) for split in SPLITS},
        offenders=sorted(collector.offenders, key=_order),
        twins=pairs,
        shared_patients=shared,
        notes=notes,
        facts=facts,
    )


def dimensions_of_nearly_all(data: DataList, findings: Findings) -> int | None:
    """Spatial dimensions of nearly all images where they differ from the option, else None."""
    other = 2 if data.spatial_dims == 3 else 3
    words = f"--spatial-dims {other}", f"it has {other} axes"  # others have too many axes for either
    wrong = [one for one in findings.offenders if one["kind"] == "wrong_dims" and one["split"] != UNLABELLED]
    wrong = [one for one in wrong if any(part in one["detail"] for part in words)]
    return other if wrong and len(wrong) >= NEARLY_ALL * sum(map(len, data.splits.values())) else None


def _doubts_on_test_set(data: DataList) -> list[str]:
    """A sentence on a test set that training would make much larger or smaller than its fraction, or none."""
    if data.val or data.test:
        return []
    taken, left = divide(data.train, fraction=TEST_FRACTION, seed=0, purpose="test")
    return far_from_asked(taken, left, fraction=TEST_FRACTION, split="test")


class _Collector:
    """Collects the offenders of one data set."""

    def __init__(self, data: DataList) -> None:
        self.data = data
        self.offenders: list[dict] = []
        self.record_of = {record.image: record for split in SPLITS for record in data.splits[split]}
        self.split_of = {record.image: split for split in SPLITS for record in data.splits[split]}
        self.split_of |= {record.image: UNLABELLED for record in data.unlabelled}

    def add(self, kind: str, image: str, detail: str, *, label: str = "", remedy: str = "", twin: str = "") -> None:
        self.offenders.append(
            {
                "image": self.data.relative(image) if image else "",
                "split": self.split_of.get(image, ""),
                "label": label or (self.label(image) if image in self.record_of else ""),
                "kind": kind,
                "severity": KINDS[kind].severity,
                "detail": detail,
                "remedy": remedy or KINDS[kind].remedy,
                "twin": self.data.relative(twin) if twin else "",
            }
        )

    def label(self, image: str) -> str:
        return "|".join(self.data.class_names[index] for index in self.record_of[image].positive_labels)

    def add_oddities(self, oddities: Iterable[Oddity]) -> None:
        for one in oddities:
            self.add(one.kind, one.image, one.detail)

    def add_classes(self) -> None:
        """Adds absent, rare and too small classes."""
        data = self.data
        for split in SPLITS:
            counts = dict(zip(data.class_names, data.class_counts(split), strict=True)) if data.splits[split] else {}
            for name in (name for name, count in counts.items() if count == 0):
                kind = "class_absent_in_train" if split == "train" else "class_absent"
                self.add(kind, "", f"no {split} image of {name}", label=name)
        counts = dict(zip(data.class_names, data.class_counts("train"), strict=True))
        largest = max(counts, key=lambda name: counts[name], default="")
        for name, count in counts.items():
            if 0 < count * IMBALANCE < counts[largest]:
                detail = f"{counted(count, 'training image')} of {name} against {counts[largest]} of {largest}"
                self.add("class_imbalance", "", detail, label=name)
        if data.val or data.test:
            return
        for name in data.class_names:
            images = [image for image in self.record_of if name in self.label(image).split("|")]
            patients = len({self.record_of[image].patient or image for image in images})  # unknown: one each
            if 0 < patients < len(SPLITS):
                detail = f"{counted(patients, 'patient or image', 'patients or images')} of {name}"
                self.add("class_too_small", "", detail, label=name)

    def add_shared_patients(self) -> list[dict]:
        """Adds and returns the patients in several splits."""
        splits_of: dict[str, dict[str, None]] = defaultdict(dict)
        for image, record in self.record_of.items():
            if record.patient:
                splits_of[record.patient][self.split_of[image]] = None
        shared = {patient: list(splits) for patient, splits in sorted(splits_of.items()) if len(splits) > 1}
        for image, record in self.record_of.items():
            if record.patient in shared:
                splits = " and ".join(shared[record.patient])
                self.add("shared_patient", image, f"patient {record.patient} is in {splits}")
        return [{"patient": patient, "splits": splits} for patient, splits in shared.items()]

    def add_near_duplicates(self, finder: NearDuplicateFinder, images: list[str]) -> list[dict]:
        """Adds near duplicates and returns their pairs, most similar first."""
        pairs, probable = self._search(finder, images)
        listed: set[tuple[str, bool]] = set()
        for pair in pairs:
            words = "the same picture as" if pair.exact else f"nearly the same picture ({pair.similarity:.2f}) as"
            one, other = pair.image, pair.other
            across = self.split_of[one] != self.split_of[other]
            if self.label(one) != self.label(other):
                for this, that in ((one, other), (other, one)):
                    label = self.label(that) or "without label"
                    detail = f"{words} {self.data.relative(that)}, which is {label}"
                    self.add("label_conflict", this, detail, twin=that)
            # the most similar pair is enough to remove an image; one of several equal images is never listed
            if (one, across) not in listed:
                listed.add((one, across))
                detail = f"{words} {self.data.relative(other)}{f' in {self.split_of[other]}' if across else ''}"
                self.add("twin_across_splits" if across else "twin_within_split", one, detail, twin=other)
        for one, pair in probable.items():
            if (one, True) not in listed:
                where = f"{self.data.relative(pair.other)} in {self.split_of[pair.other]}"
                self.add("probable_twin", one, f"much like {where} ({pair.similarity:.2f})", twin=pair.other)
        return [
            {
                "image": self.data.relative(pair.image),
                "split": self.split_of[pair.image],
                "label": self.label(pair.image),
                "twin": self.data.relative(pair.other),
                "twin_split": self.split_of[pair.other],
                "twin_label": self.label(pair.other),
                "exact": pair.exact,
                "similarity": pair.similarity,
            }
            for pair in pairs
        ]

    def add_copies_without_labels(self, usable: Sequence[Record]) -> list[str]:
        """A note on the images without labels that training leaves out as copies; adds that it refuses if all are.

        Args:
            usable: images with and without labels.
        """
        splits = {split: [record for record in usable if self.split_of[record.image] == split] for split in SPLITS}
        found = Found([record for record in usable if self.split_of[record.image] == UNLABELLED])
        options = read(ReadOptions, {"spatial_dims": self.data.spatial_dims, "twin_search": "always"})
        leave_out_copies(found, splits, options, self.data.root)
        if not found.left_out:
            return []
        if not found.records:
            self.add("data_set", "", ALL_KNOWN)
        held_out = "of validation or test images, so training leaves"
        one = f"image without a label is a copy {held_out} it out"
        many = f"images without labels are copies {held_out} them out"
        return [counted(len(found.left_out), one, many)]

    def _search(
        self, finder: NearDuplicateFinder, images: list[str]
    ) -> tuple[list[NearDuplicate], dict[str, NearDuplicate]]:
        """Near duplicates, most similar first, and the most similar probable one of each image in another split.

        ``image`` of each pair is the one to remove: that of the test split, else the first by name.
        """

        def order(image: str) -> tuple[int, str]:
            return -SPLITS.index(self.split_of[image]), image

        images = sorted(images, key=order)
        pairs: list[NearDuplicate] = []
        probable: dict[str, NearDuplicate] = {}
        for found in finder.find(images, images, min_similarity=PROBABLE_SIMILARITY):
            one, other = sorted((found.image, found.other), key=order)
            pair = replace(found, image=one, other=other)
            patient = self.record_of[one].patient
            if not pair.exact and pair.similarity < SIMILARITY:
                across = self.split_of[one] != self.split_of[other]
                if across and (one not in probable or pair.similarity > probable[one].similarity):
                    probable[one] = pair
            # neighbouring slices and registered sequences of one patient are similar without being copies
            elif pair.exact or not patient or patient != self.record_of[other].patient:
                pairs.append(pair)
        return sorted(pairs, key=lambda pair: (-pair.similarity, pair.image, pair.other)), probable

    def add_other_files(self) -> None:
        """Adds the files in the data set that are none of its images."""
        for name in sorted(self.data.ignored):
            content = content_of(Path(name))
            junk = any(map(is_junk, Path(self.data.relative(name)).parts))
            detail = "no file that can be read" if content is None else f"the content is {content}"
            if content in (*FORMATS, *CONVERTIBLE) and not junk:
                self.add("left_out_image", name, detail)
            else:
                self.add("junk", name, detail, remedy=not_read(content)[1] if content in WORKBOOKS else "")


def _order(offender: dict) -> tuple:
    """Worst kinds first, then test images before training images, then by name."""
    place = (*SPLITS, UNLABELLED).index(offender["split"]) if offender["split"] else -1
    return ORDER[offender["kind"]], -place, offender["image"], offender["twin"], offender["label"]


def _pairs_in_words(pairs: Sequence[dict]) -> tuple[str, str]:
    """Headline and example of near duplicates whose first images are in one split."""
    split = pairs[0]["split"]
    images = {pair["image"] for pair in pairs}
    exact = {pair["image"] for pair in pairs if pair["exact"]}
    others = " and ".join(sorted({pair["twin_split"] for pair in pairs}, key=SPLITS.index))
    others = "the same split" if others == split else others
    subject = counted(len(images), f"{split} image has", f"{split} images have")
    near = counted(len(images) - len(exact), "near copy", "near copies")
    example = f"{pairs[0]['image']} and {pairs[0]['twin']}"
    return f"{subject} a twin in {others} ({len(exact)} exact, {near})", example
