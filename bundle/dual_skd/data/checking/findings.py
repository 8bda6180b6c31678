# SPDX-License-Identifier: Apache-2.0
"""Everything that spoils a result, found before any training: bad files, leaks, contradicting labels, shortcuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dual_skd.data.checking.finding_kinds import KINDS, OF_FILES, ORDER
from dual_skd.data.checking.outliers import Oddity, find_oddities, stretching
from dual_skd.data.checking.shortcuts import find_shortcuts
from dual_skd.data.near_duplicates.finder import PROBABLE_SIMILARITY, SIMILARITY, NearDuplicateFinder
from dual_skd.data.near_duplicates.signature_cache import Signatures
from dual_skd.data.reading.formats import CONVERTIBLE, IMAGE_FORMATS, WORKBOOKS, content_of, not_read
from dual_skd.data.reading.inspection import FileFacts, inspect_all
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.image_files import is_junk
from dual_skd.data.records.splitting import divide, far_from_asked
from dual_skd.utils.wording import counted

TEST_FRACTION = 0.2  # of the images, which training makes its test set where no split is given
NEARLY_ALL = 0.9  # of the images: then the wish is wrong, and not they
IMBALANCE = 10  # times as many images of one class as of another
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
    """Everything that a check found; ``errors`` and ``warnings`` say it in sentences.

    Args:
        counts: split -> images per class name.
        offenders: one dict with the keys of :data:`COLUMNS` per image and kind; "image" is "" for findings about the
            whole set.
        twins: {"image", "split", "label", "twin", "twin_split", "twin_label", "exact", "similarity"} of copies.
        shared_patients: {"patient", "splits"} of patients in more than one split.
        notes: what is good to know and no fault, in words.
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
        """Twins that stand in different splits."""
        return [twin for twin in self.twins if twin["split"] != twin["twin_split"]]

    @property
    def conflicts(self) -> list[dict]:
        """Twins with different labels."""
        return [twin for twin in self.twins if twin["label"] != twin["twin_label"]]

    @property
    def errors(self) -> list[str]:
        """What must be mended before a result means anything."""
        return [group.sentence for group in self.groups("error")]

    @property
    def warnings(self) -> list[str]:
        """What a user should know and training survives."""
        return [group.sentence for group in self.groups("warning")]

    @property
    def ok(self) -> bool:
        return not any(one["severity"] == "error" for one in self.offenders)

    def groups(self, severity: str) -> list[Group]:
        """The findings of one severity, kind by kind, the worst kinds first."""
        found: dict[tuple[str, str], list[dict]] = {}
        for one in self.offenders:
            if one["severity"] == severity:
                # the leak of test images and that of validation images, and each shortcut, are told apart
                kind = one["kind"]
                apart = (kind in ("shortcut", "doubt") and one["detail"]) or (kind.startswith("twin") and one["split"])
                found.setdefault((one["kind"], apart or ""), []).append(one)
        return [
            Group(kind, severity, *self._words(kind, members), members)
            for (kind, _), members in sorted(found.items(), key=lambda item: ORDER[item[0][0]])
        ]

    def as_dict(self) -> dict:
        """Plain types, for a JSON file."""
        return {
            "ok": self.ok,
            "errors": self.errors,
            "warnings": self.warnings,
            "notes": self.notes,
            "counts": self.counts,
            "unreadable": self.unreadable,
            "shared_patients": self.shared_patients,
            "twins": self.twins,
            "offenders": self.offenders,
        }

    def _words(self, kind: str, members: Sequence[dict]) -> tuple[str, str]:
        """(headline, example) of a group."""
        first = members[0]
        if kind in ("data_set", "doubt", "shortcut"):
            return f"{first['detail'][0].upper()}{first['detail'][1:].removesuffix('.')}", ""
        if kind == "shared_patient":
            patient = self.shared_patients[0]
            example = f"{patient['patient']} in {' and '.join(patient['splits'])}"
            return _count(kind, len(self.shared_patients)), example
        if kind == "label_conflict":
            pair = self.conflicts[0]
            example = f"{pair['image']} ({pair['label']}) and {pair['twin']} ({pair['twin_label']})"
            return _count(kind, len(self.conflicts)), example
        if kind == "twin_across_splits":
            return _twins_in_words(self.leaks, first["split"])
        if kind == "twin_within_split":
            inside = [twin for twin in self.twins if twin["split"] == twin["twin_split"]]
            return _twins_in_words(inside, first["split"])
        example = f"{first['image']}: {first['detail']}" if first["image"] else first["detail"]
        return _count(kind, len(members)), example


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
        known: what was found before, while the set was loaded.
        twins: look for copies among the images.
    """
    records = [record for split in SPLITS for record in data.splits[split]]
    images = [record.image for record in records]
    signatures = Signatures(images, spatial_dims=data.spatial_dims) if twins and finder is None else None
    if facts is None:
        also = signatures.add if signatures else None
        facts = inspect_all(images, data.spatial_dims, also=also)
    usable = [record for record in records if not facts[record.image].problem]
    reports = _Reports(data)
    for oddity in known:
        reports.add(oddity.kind, oddity.image, oddity.detail)
    reports.add_files(facts[record.image] for record in records)
    for doubt in [*data.doubts, *_share_to_expect(data)]:
        reports.add("doubt", "", doubt)
    shared = reports.add_labels_and_patients()
    pairs = []
    if twins and usable:
        images = [record.image for record in usable]
        finder = finder or NearDuplicateFinder(images, spatial_dims=data.spatial_dims, signatures=signatures)
        pairs = reports.add_twins(finder, images)
    for oddity in find_oddities([facts[record.image] for record in records]):
        reports.add(oddity.kind, oddity.image, oddity.detail)
    for shortcut in find_shortcuts(usable, [facts[record.image] for record in usable], data.class_names):
        reports.add("shortcut", "", shortcut.sentence, label=shortcut.label, remedy=shortcut.remedy)
    reports.add_leftovers()
    note = stretching([facts[record.image] for record in usable])
    return replace(reports.findings(pairs, shared), notes=[note] if note else [], facts=facts)


def dimensions_of_nearly_all(data: DataList, findings: Findings) -> int | None:
    """The spatial dimensions that nearly all images have, where these aren't those that were asked for, else None."""
    other = 2 if data.spatial_dims == 3 else 3
    words = f"--spatial-dims {other}", f"it has {other} axes"  # others have too many axes for either
    wrong = [
        one for one in findings.offenders if one["kind"] == "wrong_dims" and any(w in one["detail"] for w in words)
    ]
    return other if wrong and len(wrong) >= NEARLY_ALL * sum(map(len, data.splits.values())) else None


def _share_to_expect(data: DataList) -> list[str]:
    """A sentence on a test set that training would make much larger or smaller than it is asked to, or none."""
    if data.val or data.test:
        return []
    taken, left = divide(data.train, fraction=TEST_FRACTION, seed=0, purpose="test")
    return far_from_asked(taken, left, fraction=TEST_FRACTION, split="test")


class _Reports:
    """Collects offenders of one data set."""

    def __init__(self, data: DataList) -> None:
        self.data = data
        self.offenders: list[dict] = []
        self.record_of = {record.image: record for split in SPLITS for record in data.splits[split]}
        self.split_of = {record.image: split for split in SPLITS for record in data.splits[split]}

    def add(self, kind: str, image: str, detail: str, *, label: str = "", remedy: str = "", twin: str = "") -> None:
        record = self.record_of.get(image)
        self.offenders.append(
            {
                "image": self.data.relative(image) if image else "",
                "split": self.split_of.get(image, ""),
                "label": label or (self.label(image) if record else ""),
                "kind": kind,
                "severity": KINDS[kind].severity,
                "detail": detail,
                "remedy": remedy or KINDS[kind].remedy,
                "twin": self.data.relative(twin) if twin else "",
            }
        )

    def label(self, image: str) -> str:
        label = self.record_of[image].label
        if isinstance(label, list):
            return "|".join(name for name, flag in zip(self.data.class_names, label, strict=True) if flag)
        return self.data.class_names[label]

    def add_files(self, facts: Iterable[FileFacts]) -> None:
        for one in facts:
            if one.problem:
                self.add(one.problem, one.image, one.detail, remedy=one.remedy)

    def add_labels_and_patients(self) -> list[dict]:
        """Adds absent and rare classes and patients in several splits; returns the latter."""
        data = self.data
        for split in SPLITS:
            if not data.splits[split]:
                continue
            for name, count in zip(data.class_names, data.class_counts(split), strict=True):
                if count == 0:
                    kind = "class_absent_in_train" if split == "train" else "class_absent"
                    self.add(kind, "", f"no {split} image of {name}", label=name)
        counts = dict(zip(data.class_names, data.class_counts("train"), strict=True))
        most, most_count = max(counts.items(), key=lambda item: item[1], default=("", 0))
        for name, count in counts.items():
            if 0 < count * IMBALANCE < most_count:
                detail = f"{counted(count, 'training image')} of {name} against {most_count} of {most}"
                self.add("class_imbalance", "", detail, label=name)
        for name in data.class_names if not data.splits["val"] and not data.splits["test"] else ():
            records = {image: one for image, one in self.record_of.items() if name in self.label(image).split("|")}
            patients = {record.patient or image for image, record in records.items()}  # unknown: one each
            if 0 < len(patients) < len(SPLITS):
                self.add(
                    "class_too_small",
                    "",
                    f"{counted(len(patients), 'patient or image', 'patients or images')} of {name}",
                    label=name,
                )
        splits_of: dict[str, list[str]] = {}
        for image, record in self.record_of.items():
            if record.patient:
                splits = splits_of.setdefault(record.patient, [])
                if self.split_of[image] not in splits:
                    splits.append(self.split_of[image])
        shared = {patient: splits for patient, splits in sorted(splits_of.items()) if len(splits) > 1}
        for image, record in self.record_of.items():
            if both := shared.get(record.patient):
                self.add("shared_patient", image, f"patient {record.patient} is in {' and '.join(both)}")
        return [{"patient": patient, "splits": splits} for patient, splits in shared.items()]

    def add_twins(self, finder: NearDuplicateFinder, images: list[str]) -> list[dict]:
        """Adds copies; returns all pairs, most similar first."""
        images = sorted(images, key=self._place)
        pairs = []
        probable: dict[str, tuple[str, float]] = {}
        for twin in finder.find(images, images, min_similarity=PROBABLE_SIMILARITY):
            one, other = sorted((twin.image, twin.other), key=self._place)
            if not twin.exact and twin.similarity < SIMILARITY:
                if self.split_of[one] != self.split_of[other] and twin.similarity > probable.get(one, ("", 0.0))[1]:
                    probable[one] = other, twin.similarity
                continue
            patients = {self.record_of[one].patient, self.record_of[other].patient}
            # neighbouring slices and registered sequences of one patient are alike and no copies
            if not twin.exact and len(patients) == 1 and patients != {""}:
                continue
            pairs.append((one, other, twin))
        pairs.sort(key=lambda pair: (-pair[2].similarity, pair[0], pair[1]))
        told: set[tuple[str, bool]] = set()
        for one, other, twin in pairs:
            likeness = "the same picture as" if twin.exact else f"nearly the same picture ({twin.similarity:.2f}) as"
            across = self.split_of[one] != self.split_of[other]
            names = {place: self.data.relative(place) for place in (one, other)}
            if self.label(one) != self.label(other):
                for this, that in ((one, other), (other, one)):
                    detail = f"{likeness} {names[that]}, which is {self.label(that) or 'without label'}"
                    self.add("label_conflict", this, detail, twin=that)
            # its best twin is enough to remove an image; the last one of several equal images is never listed
            if (one, across) in told:
                continue
            told.add((one, across))
            if across:
                self.add("twin_across_splits", one, f"{likeness} {names[other]} in {self.split_of[other]}", twin=other)
            else:
                self.add("twin_within_split", one, f"{likeness} {names[other]}", twin=other)
        for one, (other, similarity) in probable.items():
            if (one, True) not in told:
                where = f"{self.data.relative(other)} in {self.split_of[other]}"
                self.add("probable_twin", one, f"much like {where} ({similarity:.2f})", twin=other)
        return [
            {
                "image": self.data.relative(one),
                "split": self.split_of[one],
                "label": self.label(one),
                "twin": self.data.relative(other),
                "twin_split": self.split_of[other],
                "twin_label": self.label(other),
                "exact": twin.exact,
                "similarity": twin.similarity,
            }
            for one, other, twin in pairs
        ]

    def _place(self, image: str) -> tuple[int, str]:
        """Order of the images: test images first, as they are the ones to remove from a pair."""
        return -SPLITS.index(self.split_of[image]), image

    def add_leftovers(self) -> None:
        """Adds the files that lie in the data set and are none of its images."""
        for name in sorted(self.data.ignored):
            content = content_of(Path(name))
            is_left_over = any(map(is_junk, Path(self.data.relative(name)).parts))
            detail = "no file that can be read" if content is None else f"the content is {content}"
            if content in (*IMAGE_FORMATS, *CONVERTIBLE) and not is_left_over:
                self.add("left_out_image", name, detail)
            else:
                self.add("junk", name, detail, remedy=not_read(content)[1] if content in WORKBOOKS else "")

    def findings(self, twins: list[dict], shared_patients: list[dict]) -> Findings:
        data = self.data
        return Findings(
            counts={split: dict(zip(data.class_names, data.class_counts(split), strict=True)) for split in SPLITS},
            offenders=sorted(self.offenders, key=_order),
            twins=twins,
            shared_patients=shared_patients,
        )


def _order(offender: dict) -> tuple:
    """Worst kinds first, then test images before training images, then by name."""
    place = SPLITS.index(offender["split"]) if offender["split"] else -1
    return ORDER[offender["kind"]], -place, offender["image"], offender["twin"], offender["label"]


def _count(kind: str, count: int) -> str:
    return counted(count, KINDS[kind].one, KINDS[kind].many)


def _twins_in_words(twins: Sequence[dict], split: str) -> tuple[str, str]:
    """The twins of one split: how many of its images have one, and where."""
    mine = [twin for twin in twins if twin["split"] == split]
    images = {twin["image"] for twin in mine}
    exact = {twin["image"] for twin in mine if twin["exact"]}
    others = " and ".join(sorted({twin["twin_split"] for twin in mine}, key=SPLITS.index))
    others = "the same split" if others == split else others
    subject = counted(len(images), f"{split} image has", f"{split} images have")
    near = len(images) - len(exact)
    counts = f"{len(exact)} exact, {counted(near, 'near copy', 'near copies')}"
    return f"{subject} a twin in {others} ({counts})", f"{mine[0]['image']} and {mine[0]['twin']}"
