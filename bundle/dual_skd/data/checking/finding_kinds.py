# SPDX-License-Identifier: Apache-2.0
"""The kinds of findings, worst first: severity, words, remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its severity, its words for one and for many, and what to do about it."""

    severity: str
    one: str
    many: str
    remedy: str = ""


_FILE = "replace or remove the file"
_LOOK = "look at the image, and remove or correct it if it is wrong"
KINDS: dict[str, Kind] = {
    "data_set": Kind("error", "The data set can't be used", "The data set can't be used"),
    "missing": Kind("error", "image is missing", "images are missing", _FILE),
    "outside": Kind(
        "error",
        "image lies outside the folder of the list",
        "images lie outside the folder of the list",
        "correct the path, or allow it with --allow-outside if you know this list",
    ),
    "empty": Kind("error", "image file is empty", "image files are empty", _FILE),
    "not_an_image": Kind("error", "file is no image", "files are no images", _FILE),
    "program": Kind(
        "error",
        "DICOM file is a program, too",
        "DICOM files are programs, too",
        "don't run it; overwrite its first 128 bytes with zeros if you trust its source, or remove it",
    ),
    "truncated": Kind("error", "image is cut short", "images are cut short", _FILE),
    "unreadable": Kind("error", "image can't be read", "images can't be read", _FILE),
    "missing_slices": Kind("error", "series lacks slices", "series lack slices", _FILE),
    "wrong_dims": Kind("error", "image has other dimensions than asked for", "images have other dimensions", _FILE),
    "not_finite": Kind("error", "image has NaN or infinite values", "images have NaN or infinite values", _FILE),
    "constant": Kind("error", "image has one value everywhere", "images have one value everywhere", _FILE),
    "unknown_label": Kind(
        "error",
        "image has a label that is none of the classes",
        "images have labels that are none of the classes",
        "correct the label, or the list of classes",
    ),
    "shared_patient": Kind(
        "error",
        "patient is in more than one split",
        "patients are in more than one split",
        "move all images of the patient to one split",
    ),
    "label_conflict": Kind(
        "error",
        "pair of twins has different labels",
        "pairs of twins have different labels",
        "find out which label is right, and remove the other entry",
    ),
    "twin_across_splits": Kind(
        "error",
        "",
        "",
        "remove one of the two: --clean-list leaves the training image out, as test images are fewer; training itself "
        "takes the training set as it is given, and leaves the validation or test image out",
    ),
    "class_absent_in_train": Kind(
        "error", "class has no training image", "classes have no training images", "add training images of the class"
    ),
    "probable_twin": Kind(
        "warning",
        "image is much like one in another split, less than a copy",
        "images are much like one in another split, less than copies",
        "look at some of these pairs: neighbouring slices need patient ids that keep them in one split, edited copies "
        "are to be removed",
    ),
    "twin_within_split": Kind("warning", "", "", "keep one of the copies"),
    "class_absent": Kind(
        "warning",
        "class is missing from a split",
        "classes are missing from a split",
        "add images of it, or leave the split out to have one made",
    ),
    "class_too_small": Kind(
        "warning",
        "class has too few patients to be divided",
        "classes have too few patients to be divided",
        "add some (training, validation and test take one at least), or see whether --label-column names classes",
    ),
    "doubt": Kind("warning", "", ""),
    "class_imbalance": Kind(
        "warning",
        "class is rare",
        "classes are rare",
        "train with class_weights, and judge by balanced accuracy or AUC",
    ),
    "shortcut": Kind("warning", "", ""),
    "wrong_suffix": Kind(
        "warning",
        "file is something else than its name says",
        "files are something else than their names say",
        "rename the file",
    ),
    "inverted": Kind("warning", "image may be inverted", "images may be inverted", _LOOK),
    "wrong_photometric": Kind(
        "warning",
        "image has no usable photometric interpretation",
        "images have no usable photometric interpretation",
        "set PhotometricInterpretation to MONOCHROME1 or MONOCHROME2 after a look at the image",
    ),
    "size": Kind("warning", "image has an unusual size", "images have an unusual size", _LOOK),
    "spacing": Kind("warning", "image has an unusual spacing", "images have an unusual spacing", _LOOK),
    "orientation": Kind("warning", "image has an unusual orientation", "images have an unusual orientation", _LOOK),
    "mixed_modality": Kind(
        "warning",
        "image is of another modality",
        "images are of another modality",
        "remove it, or train one model per modality",
    ),
    "mixed_values": Kind(
        "warning",
        "image has values that mean something else than those of the others",
        "images have values that mean something else than those of the others",
        "remove it, export all images the same way, or train with --window percentile",
    ),
    "series": Kind("warning", "series is irregular", "series are irregular", _LOOK),
    "mosaic": Kind(
        "warning",
        "image is a Siemens mosaic",
        "images are Siemens mosaics",
        "convert it to NIfTI with dcm2niix, and take its slices",
    ),
    "saturated": Kind(
        "warning",
        "image is saturated",
        "images are saturated",
        "export the image again with a wider window, or crop a white margin",
    ),
    "nearly_constant": Kind("warning", "image is nearly uniform", "images are nearly uniform", _LOOK),
    "left_out_image": Kind(
        "warning",
        "image was left out, as its name or place gives it no label",
        "images were left out, as their names or places give them no label",
        "move it to a class or list it; another format must be converted (to PNG, JPEG, TIFF, DICOM or NIfTI)",
    ),
    "junk": Kind(
        "warning",
        "file is no image and was left out",
        "files are no images and were left out",
        "nothing has to be done: training leaves such files out, too",
    ),
}
# problems of single files that training can't use
OF_FILES = tuple(list(KINDS)[1 : list(KINDS).index("unknown_label")])
ORDER = {kind: place for place, kind in enumerate(KINDS)}
