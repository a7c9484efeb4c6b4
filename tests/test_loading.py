"""Image and mask stay together, and nothing depends on who loads."""

import cv2
import numpy as np
import pytest
import torch
from conftest import write_dataset

from lumbar_utils import StudyError
from lumbar_utils.data.decoding import Fit, decode
from lumbar_utils.data.folder import read
from lumbar_utils.data.preparation import first_look, prepare
from lumbar_utils.data.sources import load
from lumbar_utils.networks.augmentation import Stretch, augmentation
from lumbar_utils.networks.dataset import (
    NOT_AUGMENTED,
    EpochSampler,
    SliceDataset,
    evaluation_batches,
    loader,
    normalise,
)
from lumbar_utils.study import Study


@pytest.mark.parametrize(
    "shape, expected",
    [
        pytest.param((320, 320), (slice(0, 160), slice(0, 160)), id="square, halved"),
        pytest.param((640, 512), (slice(0, 160), slice(16, 144)), id="upright, padded left and right"),
        pytest.param((64, 128), (slice(40, 120), slice(0, 160)), id="lying, padded above and below"),
    ],
)
def test_an_image_is_scaled_without_distortion_and_centred(shape, expected):
    assert Fit.of(shape, 160, 160).inside == expected


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("keep", [None, 0, 200], ids=["absent", "empty", "cut off"])
def test_half_a_cache_is_decoded_again(dataset, tmp_path, name, keep):
    cohort = read(dataset)
    whole = [np.array(pixels) for pixels in decode(cohort, 64, 64, tmp_path)]
    (file,) = tmp_path.glob(f"decoded-*/{name}")
    content = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(content[:keep])
    assert np.array_equal(decode(cohort, 64, 64, tmp_path), whole)


def test_half_a_source_in_the_cache_is_named_with_its_remedy(tmp_path):
    study = Study("smoke", runs=tmp_path / "runs", cache=tmp_path / "cache", phantom_patients=3)
    (image, *_) = load(study).folder.glob("images/*.png")
    image.unlink()
    with pytest.raises(StudyError, match=r"names 1 files that are not there, .*; or delete .*phantom-3x96.*made again"):
        load(study)


def test_a_label_map_goes_into_the_grid_and_back():
    label_map = np.zeros((128, 96), np.uint8)
    label_map[32:64, 16:48] = 3
    fit = Fit.of(label_map.shape, 64, 64)
    grid = fit.into_grid(label_map, cv2.INTER_NEAREST_EXACT)
    assert (grid == 3).sum() == 16 * 16
    back = fit.out_of_grid(np.stack([grid == 0, grid == 3]).astype(np.float32), label_map.shape)
    overlap = ((back.argmax(axis=0) == 1) & (label_map == 3)).sum()
    assert overlap >= 0.97 * (label_map == 3).sum()


def test_decoding_happens_once_and_is_shared(dataset, tmp_path):
    cohort = prepare(Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=tmp_path / "cache"))
    images, masks = decode(cohort, 64, 64, tmp_path / "cache")
    assert images.shape == masks.shape == (6, 64, 64)
    assert isinstance(images, np.memmap)
    assert sorted(np.unique(masks)) == [0, 1, 2]
    (dataset / "images" / "case0.png").unlink()
    again, _ = decode(cohort, 64, 64, tmp_path / "cache")
    assert np.array_equal(images, again)


def test_a_first_look_has_the_images_that_the_whole_phantom_will_have(tmp_path):
    study = Study("smoke", phantom_patients=6, phantom_size=64, runs=tmp_path / "runs", cache=tmp_path / "cache")
    look = first_look(study)
    assert not study.folder.exists()
    cohort = prepare(study)
    assert look.cases["case"].tolist() == cohort.cases["case"].tolist()[:4]
    for (_, early), (_, late) in zip(look.cases.iterrows(), cohort.cases.iterrows(), strict=False):
        assert np.array_equal(look.image(early), cohort.image(late))


def test_a_first_look_shows_each_patient_once(dataset, tmp_path):
    table = (dataset / "cases.csv").read_text()
    (dataset / "cases.csv").write_text(table.replace("case1,p1", "case1,p0"))
    look = first_look(Study("smoke", dataset=str(dataset), cache=tmp_path))
    assert look.cases["case"].tolist() == ["case0", "case2", "case3", "case4"]


@pytest.mark.parametrize("strength", ["geometric", "intensity"])
def test_a_mask_follows_its_image_through_augmentation(strength):
    image = np.zeros((64, 64), np.uint8)
    image[20:44, 24:40] = 255
    augment = augmentation(strength)
    for seed in range(20):
        augment.set_random_seed(seed)
        varied = augment(image=image, mask=(image > 0).astype(np.uint8))
        bright = varied["image"] > (varied["image"].max() / 2)
        inside = varied["mask"] > 0
        assert 2 * (bright & inside).sum() / (bright.sum() + inside.sum()) > 0.9


def test_a_dark_image_survives_what_is_done_to_its_grey_values():
    image = np.zeros((64, 64), np.uint8)
    image[20:44, 24:40], image[30, 30] = 40, 200  # a body at a sixth of the range, one pixel of fluid
    augment = augmentation("intensity")
    for seed in range(20):
        augment.set_random_seed(seed)
        varied = augment(image=image, mask=(image > 0).astype(np.uint8))
        inside, outside = varied["image"][varied["mask"] > 0], varied["image"][varied["mask"] == 0]
        assert inside.mean() > 100 > 60 > outside.mean()


def test_the_brightest_half_percent_is_clipped_in_training_and_kept_elsewhere():
    image = np.full((20, 20), 50, np.uint8)
    image[0, :4] = (100, 100, 100, 200)  # of 400 pixels two lie above the percentile, between 100 and 100
    assert Stretch(p=1)(image=image)["image"][0, :5].tolist() == [255, 255, 255, 255, 128]
    cases = SliceDataset(image[None], image[None], np.array([0]), 0, augmentation("intensity"))
    assert torch.equal(cases[NOT_AUGMENTED, 0][0][0], torch.from_numpy(normalise(image)))


def test_images_are_never_mirrored():
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    augment = augmentation("intensity")
    for seed in range(20):
        augment.set_random_seed(seed)
        varied = augment(image=ramp, mask=ramp)["image"].astype(float)
        assert varied[24:40, 40:56].mean() > varied[24:40, 8:24].mean()


def test_normalised_images_have_mean_0_and_deviation_1():
    pixels = normalise(np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8))
    assert (pixels.mean(), pixels.std()) == pytest.approx((0, 1), abs=1e-5)
    assert not normalise(np.full((4, 4), 7, np.uint8)).any()


def cases(seed=0):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8)
    return SliceDataset(pixels, pixels // 50, np.array([0, 2, 4]), seed, augmentation("intensity"))


def test_a_case_depends_on_seed_epoch_and_case_and_on_nothing_else():
    first = cases()[3, 1][0]
    other = cases()
    other[3, 0], other[2, 1]  # whatever was loaded before
    assert torch.equal(first, other[3, 1][0])
    assert not torch.equal(first, cases()[4, 1][0])
    assert not torch.equal(first, cases(seed=1)[3, 1][0])
    assert cases()[3, 1][2] == 2  # its row in the table of cases


def test_pixels_have_the_32_bits_that_networks_take():
    assert normalise(np.arange(16, dtype=np.uint8).reshape(4, 4)).dtype == np.float32


def test_an_image_that_is_not_augmented_is_as_it_was():
    pixels = np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8)
    assert torch.equal(cases()[NOT_AUGMENTED, 1][0][0], torch.from_numpy(normalise(pixels[2])))


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch():
    order = EpochSampler(10, seed=0, batch=1)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(index for _, index in second) == list(range(10))
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]
    order.set_epoch(0)
    assert list(order) == first


def test_few_cases_are_gone_through_again_until_an_epoch_has_its_images():
    order = [index for _, index in EpochSampler(3, seed=0, batch=2, images=8)]
    assert len(order) == len(EpochSampler(3, seed=0, batch=2, images=8)) == 8
    assert [sorted(order[:3]), sorted(order[3:6])] == [[0, 1, 2], [3, 4, 5]] and set(order[6:]) < {6, 7, 8}
    assert order[:3] == list(np.random.default_rng([0, 0]).permutation(3))
    assert list(EpochSampler(9, seed=0, batch=2, images=8)) == list(EpochSampler(9, seed=0, batch=2))


def test_a_case_that_is_seen_again_is_varied_in_another_way(study):
    cohort = prepare(study)
    cases = loader(study, cohort, "train").dataset
    once, again = cases[0, 1], cases[0, 1 + len(cases)]
    assert once[2] == again[2] and not torch.equal(once[0], again[0])
    once, again = cases[NOT_AUGMENTED, 1], cases[NOT_AUGMENTED, 1 + len(cases)]
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])


def test_processes_share_each_batch_that_one_alone_would_see():
    alone = [index for _, index in EpochSampler(10, seed=3, batch=4)]
    shares = [[index for _, index in EpochSampler(10, seed=3, batch=4, rank=rank, processes=2)] for rank in (0, 1)]
    assert [len(EpochSampler(10, 3, 4, rank, 2)) for rank in (0, 1)] == [4, 4]
    assert alone[:4] == shares[0][:2] + shares[1][:2]
    assert alone[4:] == shares[0][2:] + shares[1][2:]


@pytest.mark.parametrize("cases, batch, processes", [(7, 4, 1), (7, 2, 2), (8, 2, 3), (5, 4, 5), (1, 4, 1)])
def test_processes_share_all_evaluated_cases_in_as_many_batches_each(cases, batch, processes):
    shares = [evaluation_batches(cases, batch, rank, processes) for rank in range(processes)]
    assert sorted(index for share in shares for part in share for _, index in part) == list(range(cases))
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(part) <= batch for share in shares for part in share)


def test_too_few_cases_to_share_are_refused(dataset, tmp_path):
    study = Study("smoke", dataset=str(dataset), runs=tmp_path / "runs", cache=tmp_path / "cache", accumulate=4)
    cohort = prepare(study)
    message = "1 validation cases cannot be shared by 2 processes in 4 parts each; lower devices, nodes or accumulate"
    with pytest.raises(StudyError, match=message):
        loader(study, cohort, "validation", processes=2)


def test_batches_are_the_same_whoever_loads_them(tmp_path):
    folder = write_dataset(tmp_path / "many", patients=14)
    batches = {}
    for workers in (0, 1, 2):
        study = Study(
            "smoke",
            dataset=str(folder),
            runs=tmp_path / "runs",
            cache=tmp_path / "cache",
            workers=workers,
            batch_size=2,
        )
        batches[workers] = [batch[0] for batch in loader(study, prepare(study), "train")]
    assert len(batches[0]) == 5
    for workers in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(batches[0], batches[workers], strict=True))
