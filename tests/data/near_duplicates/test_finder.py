# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dual_skd.data.demo import chest_xray, head_volume
from dual_skd.data.near_duplicates import signatures
from dual_skd.data.near_duplicates.finder import SIMILARITY, NearDuplicate, NearDuplicateFinder
from dual_skd.data.near_duplicates.signature_cache import cache_file, count_stored
from dual_skd.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the user's cache out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def xray(seed: int) -> Image.Image:
    """An X-ray of 160 x 160 pixels with the noise averaged out of it: white noise would be its finest structure."""
    pixels = chest_xray("normal", anatomy_seed=seed, size=(320, 320))
    return Image.fromarray((pixels // 16).astype(np.uint8)).resize((160, 160), Image.Resampling.BOX)


def saved(image: Image.Image | np.ndarray, path: Path, **options) -> str:
    """Saves a picture or a volume and returns its path."""
    if isinstance(image, np.ndarray):
        np.save(path, image)
    else:
        image.save(path, **options)
    return str(path)


def decoded(monkeypatch) -> list[str]:
    """The images that are decoded from now on."""
    names: list[str] = []
    read = signatures.read_grey
    monkeypatch.setattr(signatures, "read_grey", lambda image, **options: names.append(image) or read(image, **options))
    return names


def test_each_image_has_its_most_similar_known_one(tmp_path):
    known = [saved(xray(seed), tmp_path / f"known{seed}.png") for seed in (1, 2)]
    copy, other = saved(xray(2), tmp_path / "copy.png"), saved(xray(3), tmp_path / "other.png")
    small = saved(xray(1).resize((100, 100)), tmp_path / "small.png")
    best = NearDuplicateFinder([*known, copy, other, small]).find_best([copy, other, small], known)
    assert best.keys() == {copy, small} and best[copy] == NearDuplicate(copy, known[1], True, 1.0)
    assert best[small].other == known[0] and not best[small].exact and SIMILARITY <= best[small].similarity < 1


def test_a_file_that_is_itself_among_the_known_ones_is_its_own_copy(tmp_path):
    image = saved(xray(1), tmp_path / "a.png")
    assert NearDuplicateFinder([image]).find_best([image], [image]) == {image: NearDuplicate(image, image, True, 1.0)}


CHANGES = {
    "encoded anew": lambda image: _jpeg(image, 50),
    "half as large": lambda image: image.resize((80, 80), Image.Resampling.BICUBIC),
    "larger, other aspect": lambda image: image.resize((240, 200), Image.Resampling.BILINEAR),
    "turned": lambda image: image.rotate(1.5, resample=Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "gamma": lambda image: image.point([round(255 * (v / 255) ** 0.7) for v in range(256)]),
    "cropped": lambda image: image.crop((3, 2, 158, 157)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
}


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_changed_copies_are_found_and_other_patients_are_not(tmp_path):
    originals = [saved(xray(seed), tmp_path / f"{seed}.png") for seed in range(30)]
    copies = {
        saved(change(Image.open(originals[seed])), tmp_path / f"{name} {seed}.png"): originals[seed]
        for name, change in CHANGES.items()
        for seed in (0, 17)
    }
    found = NearDuplicateFinder([*originals, *copies]).find(list(copies), originals)
    assert {(pair.image, pair.other) for pair in found} == set(copies.items())
    assert not any(pair.exact for pair in found)
    assert NearDuplicateFinder(originals).find(originals, originals) == []


def test_equal_pictures_are_exact_copies_whatever_the_file_format(tmp_path):
    image = xray(1)
    paths = [
        saved(image, tmp_path / "grey.png"),
        saved(image.convert("RGB"), tmp_path / "colour.tiff"),
        saved(np.asarray(image).T, tmp_path / "array.npy"),
    ]
    found = NearDuplicateFinder(paths).find(paths, paths)
    assert [(pair.image, pair.other, pair.exact) for pair in found] == [
        (paths[0], paths[1], True),
        (paths[0], paths[2], True),
        (paths[1], paths[2], True),
    ]


@pytest.mark.parametrize("largest", [3e-3, 0.5, 1.0])
def test_digests_tell_pictures_of_small_values_apart(largest):
    values = np.random.default_rng(0).integers(0, 1000, (2, 16, 16)).astype(np.float32) / 1000 * np.float32(largest)
    assert signatures.digest_of(values[0]) != signatures.digest_of(values[1])
    assert signatures.digest_of(values[0]) == signatures.digest_of(values[0] * np.float32(1 + 1e-7))
    brighter = values[0].copy()
    brighter[3, 4] += 2e-3 * largest
    assert signatures.digest_of(values[0]) != signatures.digest_of(brighter)


def test_digests_of_grey_levels_and_hounsfield_units_are_of_hundredths():
    generator = np.random.default_rng(0)
    for values in (generator.integers(0, 256, (16, 16)), generator.integers(-1024, 3072, (16, 16)), np.zeros((4, 4))):
        values = values.astype(np.float32)
        assert signatures.digest_of(values) == signatures.digest_of(values + np.float32(1e-3))


def test_neighbouring_slices_are_no_near_duplicates(tmp_path):
    paths = []
    for seed in range(4):
        volume = head_volume("lesion", anatomy_seed=seed, size=(96, 96, 24))
        grey = np.clip((volume - volume.min()) / np.ptp(volume) * 255, 0, 255).astype(np.uint8)
        paths += [saved(Image.fromarray(grey[:, :, k]), tmp_path / f"{seed} {k}.png") for k in range(8, 17)]
    assert NearDuplicateFinder(paths).find(paths, paths) == []


def test_volumes_have_near_duplicates_too(tmp_path):
    noise = np.random.default_rng(0).normal(0, 5, (48, 48, 24))
    volumes = [head_volume("normal", anatomy_seed=seed).astype(np.float32) for seed in (1, 2, 3)]
    paths = [saved(volume, tmp_path / f"{place}.npy") for place, volume in enumerate(volumes)]
    paths.append(saved((1.3 * volumes[0] + noise + 100).astype(np.float32), tmp_path / "copy.npy"))
    found = NearDuplicateFinder(paths, spatial_dims=3).find(paths, paths)
    assert [(t.image, t.other, t.exact) for t in found] == [(paths[0], paths[3], False)]
    assert list(NearDuplicateFinder(paths[:1]).unreadable) == paths[:1]


def test_a_picture_is_decoded_once_for_its_signature_and_again_when_it_changes(tmp_path, monkeypatch):
    paths = [saved(xray(seed), tmp_path / f"{seed}.png") for seed in range(3)]
    names = decoded(monkeypatch)
    assert count_stored(paths) == 0
    first = NearDuplicateFinder(paths)
    assert sorted(names) == paths and count_stored(paths) == 3 and count_stored(paths, spatial_dims=3) == 0
    again = NearDuplicateFinder(paths)
    assert len(names) == 3
    assert again.find(paths, paths) == first.find(paths, paths) == []
    saved(xray(9), Path(paths[1]))
    saved(xray(9), tmp_path / "2.png")
    names.clear()
    changed = NearDuplicateFinder(paths)
    assert sorted(names) == paths[1:]
    assert [(t.image, t.other, t.exact) for t in changed.find(paths, paths)] == [(paths[1], paths[2], True)]
    names.clear()
    NearDuplicateFinder(paths, cache=False)
    assert sorted(names) == paths


def test_two_pictures_are_compared_finely_once(tmp_path, monkeypatch):
    paths = [saved(xray(1), tmp_path / "a.png"), saved(_jpeg(xray(1), 60), tmp_path / "b.png")]
    first = NearDuplicateFinder(paths).find(paths, paths)
    names = decoded(monkeypatch)
    again = NearDuplicateFinder(paths)
    assert again.find(paths, paths) == first and len(first) == 1 and names == []
    assert again.find(paths, paths, min_similarity=0.999) == []
    assert NearDuplicateFinder(paths, cache=False).find(paths, paths) == first and sorted(names) == paths


def test_what_is_kept_between_runs_is_no_picture_and_the_users_alone(tmp_path, monkeypatch):
    NearDuplicateFinder([saved(xray(1), tmp_path / "a.png")])
    assert cache_file().stat().st_mode & 0o077 == 0 and cache_file().stat().st_size < 30_000
    assert str(tmp_path).encode() not in cache_file().read_bytes()


def test_a_cache_that_cannot_be_used_is_no_error(tmp_path, monkeypatch):
    path = saved(xray(1), tmp_path / "a.png")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a file where a folder is needed
    assert NearDuplicateFinder([path]).unreadable == {} and count_stored([path]) == 0
    (tmp_path / "dual_skd").mkdir()
    (tmp_path / "dual_skd" / "signatures.sqlite").write_bytes(b"this is no data base" * 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert NearDuplicateFinder([path]).unreadable == {} and count_stored([path]) == 0


def test_unreadable_images_are_named_and_not_remembered(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nothing more")
    good = saved(xray(1), tmp_path / "good.png")
    finder = NearDuplicateFinder([str(broken), good, str(tmp_path / "absent.png")])
    assert set(finder.unreadable) == {str(broken), str(tmp_path / "absent.png")}
    assert finder.find([str(broken), good], [good]) == [] and count_stored([str(broken), good]) == 1
    with pytest.raises(InputError, match=r"broken.png \(and 1 more\) can't be read"):
        finder.refuse_unreadable()


def test_pictures_without_structure_are_near_duplicates_only_where_they_are_equal(tmp_path):
    paths = [saved(Image.new("L", (64, 64), value), tmp_path / f"{place}.png") for place, value in enumerate((9, 9, 7))]
    found = NearDuplicateFinder(paths).find(paths, paths)
    assert [(t.image, t.other, t.exact) for t in found] == [(paths[0], paths[1], True)]


def test_an_empty_list_has_no_near_duplicates(tmp_path):
    path = saved(xray(1), tmp_path / "a.png")
    assert NearDuplicateFinder([]).find([], []) == [] and NearDuplicateFinder([path]).find([path], []) == []
