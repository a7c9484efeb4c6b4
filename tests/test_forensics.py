"""A table against itself: the paper's, tables that are right by construction, and bounds that chance never leaves."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as some
from sklearn.metrics import average_precision_score
from torchmetrics.detection import MeanAveragePrecision

from lumbar_utils import StudyError
from lumbar_utils.appendix.forensics import (
    COCO,
    VERDICTS,
    coco_ap_bounds,
    examine,
    harmonic_mean,
    pixel_ap_floor,
    read_table,
)
from lumbar_utils.scores import metrics, paper

SHARES = some.floats(0, 1)
UNITS = some.lists(some.tuples(SHARES, SHARES), min_size=1, max_size=8)
STEPS = 2 * COCO["COCO AP@[.50:.95]"] / (1 + COCO["COCO AP@[.50:.95]"])  # Dice from which a threshold is reached


def one(precision=0.8, recall=0.8, f1=0.8, average=0.8):
    return {"mine": {"precision": precision, "recall": recall, "f1": f1, "map": average}}


def verdicts(table, **options):
    found = examine(table, **options)
    return {(row.check, row.model): row.verdict for row in found.itertuples()}


def of_the_paper():
    return examine(paper.RESULTS, paper.ELSEWHERE, paper.HIGHEST, paper.INCONSISTENCIES).set_index(["check", "model"])


def test_the_paper_s_table_contradicts_itself_where_and_only_where_it_does():
    against = of_the_paper()["verdict"].loc[lambda verdict: verdict != "consistent"]
    assert against.to_dict() == {
        ("F1 of pooled pixels", "unet"): "ruled out",
        ("F1 of pooled pixels", "hrnet"): "ruled out",
        ("F1 of pooled pixels", "efficientnet"): "ruled out",
        ("mAP as pixel AP, interpolated", "unet"): "ruled out",
        ("mAP as pixel AP, summed", "unet"): "ruled out",
        ("mAP as COCO AP@[.50:.95]", "unet"): "ruled out",
        ("mAP as COCO AP50", "unet"): "ruled out",
        ("one definition of mAP", "all"): "not decidable",
        ("abstract against table", "hrnet"): "contradiction",
        ("text against table", "hrnet"): "contradiction",
        ("mAP ranked in the conclusion", "unet"): "contradiction",
        ("numbering of the tables", "all"): "contradiction",
    }


@pytest.mark.parametrize(
    "check, model, words",
    [
        ("F1 of pooled pixels", "hrnet", "F1 0.7208 is not 0.7726, the harmonic mean of precision 0.6684"),
        ("F1 as a mean", "unet", "from 0.9524 (P + R - 1) to 0.9762 (their harmonic mean, concave); 0.9742 does."),
        ("mAP as pixel AP, interpolated", "unet", "mAP 0.7084 lies outside 0.9523 to 1.0000"),
        ("mAP as COCO AP@[.50:.95]", "unet", "mAP 0.7084 lies outside 0.8006 to 0.9999, which F1 0.9742 leaves"),
        ("mAP as COCO AP@[.50:.95]", "efficientnet", "mAP 0.7666 lies within 0.2243 to 0.8728"),
        ("one definition of mAP", "all", "COCO AP50 (for U-Net). Within its bounds for every model, which proves noth"),
        ("abstract against table", "hrnet", "The abstract states F1 0.77208 (table: 0.7208)."),
        ("abstract against table", "unet", "The abstract differs in none of precision, recall, F1, mAP."),
        ("mAP ranked in the conclusion", "unet", "table, EfficientNet at 0.7666, above 0.7084."),
        ("numbering of the tables", "all", "headed Table I and cited as Table II."),
    ],
)
def test_the_reasoning_holds_the_numbers(check, model, words):
    assert words in of_the_paper().loc[(check, model), "reasoning"]


def test_the_verdicts_are_the_documented_ones():
    assert set(of_the_paper()["verdict"]) <= set(VERDICTS)


def test_a_table_of_one_threshold_on_pooled_pixels_is_consistent():
    found = verdicts(one(precision=0.9, recall=0.6, f1=0.72, average=0.7), decimals=4)
    assert set(found.values()) == {"consistent", "not decidable"}  # of the definition of mAP: nothing excludes one
    assert found["F1 of pooled pixels", "mine"] == "consistent"


def test_a_mean_over_two_images_is_consistent_but_not_pooled():
    # F1 of (1, 0.5) is 2/3, of (0.5, 1) the same; of the mean precision and recall it is 0.75
    found = verdicts(one(precision=0.75, recall=0.75, f1=0.6667), decimals=4)
    assert found["F1 of pooled pixels", "mine"] == "ruled out"
    assert found["F1 as a mean", "mine"] == "consistent"


@pytest.mark.parametrize(
    "precision, recall, f1",
    [
        pytest.param(0.75, 0.75, 0.76, id="above both"),
        pytest.param(0.9, 0.6, 0.73, id="above the harmonic mean 0.72"),
        pytest.param(0.75, 0.75, 0.49, id="below P + R - 1"),
    ],
)
def test_no_average_gives_an_f1_outside_of_its_bounds(precision, recall, f1):
    found = verdicts(one(precision, recall, f1), decimals=4)
    assert found["F1 of pooled pixels", "mine"] == "ruled out"
    assert found["F1 as a mean", "mine"] == "contradiction"


@pytest.mark.parametrize("decimals, verdict", [(2, "consistent"), (4, "ruled out")])
def test_what_rounds_to_the_printed_number_is_not_held_against_it(decimals, verdict):
    assert verdicts(one(0.98, 0.97, 0.97), decimals=decimals)["F1 of pooled pixels", "mine"] == verdict


def test_the_longest_number_tells_to_how_many_places_a_table_was_rounded():
    assert verdicts(one(0.98, 0.97, 0.97, 0.9))["F1 of pooled pixels", "mine"] == "consistent"
    assert verdicts(one(0.98, 0.97, 0.97, 0.9001))["F1 of pooled pixels", "mine"] == "ruled out"


@pytest.mark.parametrize("average, verdict", [(0.6998, "ruled out"), (0.6999, "consistent"), (0.7, "consistent")])
def test_the_floor_of_pixel_average_precision_is_p_plus_r_minus_1_less_rounding(average, verdict):
    found = verdicts(one(0.9, 0.8, 0.8471, average), decimals=4)  # 0.89995 + 0.79995 - 1 = 0.6999
    assert found["mAP as pixel AP, interpolated", "mine"] == verdict


def test_a_bound_that_excludes_nothing_decides_nothing():
    found = verdicts(one(0.5, 0.5, 0.5, 0.0), decimals=4)
    assert found["mAP as pixel AP, interpolated", "mine"] == "not decidable"


def test_where_every_definition_is_excluded_none_fits():
    found = verdicts(one(0.99, 0.99, 0.99, 0.1), decimals=4)
    assert found["one definition of mAP", "all"] == "ruled out"


def test_a_statement_with_fewer_places_agrees_if_the_table_rounds_to_it():
    stated = {"text": {"mine": {"precision": 0.98}}, "abstract": {"mine": {"precision": 0.99}}}
    found = verdicts(one(0.9809, 0.9715, 0.9762), elsewhere=stated)
    assert found["text against table", "mine"] == "consistent"
    assert found["abstract against table", "mine"] == "contradiction"


def test_models_printed_alike_cannot_be_ranked():
    table = one() | {"other": one()["mine"]}
    assert verdicts(table, highest={"text": {"f1": "mine"}})["F1 ranked in the text", "mine"] == "not decidable"


@for_all(UNITS)
def test_a_mean_of_f1_never_leaves_its_bounds_once_rounded(units):
    p, r = np.array(units).T
    f1 = np.mean([harmonic_mean(*unit) for unit in units])
    table = one(*(round(float(value), 4) for value in (p.mean(), r.mean(), f1)))
    assert verdicts(table, decimals=4)["F1 as a mean", "mine"] == "consistent"


def interpolated_area(score, true):
    """Area under the precision-recall curve made non-increasing, each pixel a threshold of its own."""
    hits = np.cumsum(true[np.argsort(-score)])
    precision = hits / np.arange(1, len(hits) + 1)
    gain = np.diff(hits / hits[-1], prepend=0)
    return float((np.maximum.accumulate(precision[::-1])[::-1] * gain).sum())


@for_all(some.integers(0, 10**6))
def test_pixel_average_precision_never_falls_below_its_floor(seed):
    rng, rows = np.random.default_rng(seed), []
    for _ in range(rng.integers(1, 6)):
        true = rng.random(40) < rng.random()
        true[0] = True
        score = rng.random() * true + rng.random(40) * rng.choice([-1, 1])  # sure of the right, or of the wrong ones
        mask = score >= np.quantile(score, rng.random())
        given = metrics.overlap(mask, true)
        rows.append((given["precision"], given["recall"], interpolated_area(score, true), _summed(score, true)))
        for value, interpolated in zip(rows[-1][2:], (True, False), strict=True):
            assert value >= pixel_ap_floor(*rows[-1][:2], interpolated)[0] - 1e-9
    p, r, interpolated, summed = np.mean(rows, axis=0)
    assert interpolated >= pixel_ap_floor(p, r, True)[1] - 1e-9
    assert summed >= pixel_ap_floor(p, r, False)[1] - 1e-9


def _summed(score, true):
    return float(average_precision_score(true, score))


def test_the_floor_of_pixel_average_precision_is_reached_by_false_alarms_that_rank_first():
    true = np.repeat([False, True, False, True], [500, 1500, 97_000, 1000])  # P = 0.75, R = 0.6
    score = -np.arange(len(true), dtype=float)
    once, _ = pixel_ap_floor(0.75, 0.6, interpolated=False)
    found = average_precision_score(true[:2000], score[:2000]) * 0.6  # of the hits within the mask
    assert once == pytest.approx(0.6 * (1 - np.log(4) / 3))
    assert found == pytest.approx(once, abs=1e-3)


def average_precision(matched, vertebrae):
    """COCO's at one threshold: matched or not, from the surest prediction down; 101 recalls, interpolated."""
    hits = np.cumsum(matched)
    precision = np.append(hits / np.arange(1, len(hits) + 1), 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.searchsorted(hits / vertebrae, np.arange(101) / 100)].mean())


DICE = some.one_of(
    some.sampled_from([0, 1, *STEPS + 1e-7, *STEPS - 1e-7]), some.floats(0, 1), some.just(-1)
)  # -1: nothing was predicted


@pytest.mark.parametrize("name", COCO)
@for_all(some.data())
def test_coco_average_precision_never_leaves_its_bounds(name, data):
    images = data.draw(some.integers(1, 12))
    levels = data.draw(some.lists(some.lists(DICE, min_size=images, max_size=images), min_size=1, max_size=3))
    found = []
    for level in levels:
        predicted = [value for value in level if value >= 0]
        order = data.draw(some.sampled_from([sorted(predicted), sorted(predicted)[::-1], predicted]))
        iou = np.array([value / (2 - value) for value in order])
        found += [average_precision(iou >= threshold, images) for threshold in COCO[name]]
    low, high = coco_ap_bounds(float(np.clip(levels, 0, 1).mean()), COCO[name])
    assert low - 1e-9 <= np.mean(found) <= high + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_coco_s_own_code_never_leaves_the_bounds(seed):
    rng = np.random.default_rng(seed)
    true = np.repeat([0, 1, 2, 0], 10)[:, None] * np.ones(12, int)
    measure, dice = MeanAveragePrecision(iou_type="segm", backend="faster_coco_eval"), []
    for _ in range(8):
        pred = np.roll(true, rng.integers(0, 5) if seed % 2 else rng.choice([0, 3, 4]), axis=0)
        pred[:, rng.integers(9, 13) :] = 0
        pred[pred == rng.integers(1, 8)] = 0  # one level missed, at times
        found = [level for level in (1, 2) if (pred == level).any()]
        measure.update(
            [instances(pred, found) | {"scores": torch.from_numpy(rng.random(len(found)))}], [instances(true, [1, 2])]
        )
        dice += [metrics.overlap(pred == level, true == level)["f1"] for level in (1, 2)]
    scores = measure.compute()
    for name, key in {"COCO AP@[.50:.95]": "map", "COCO AP50": "map_50", "COCO AP75": "map_75"}.items():
        low, high = coco_ap_bounds(float(np.mean(dice)), COCO[name])
        assert low - 1e-6 <= float(scores[key]) <= high + 1e-6


def instances(label_map, levels):
    masks = np.array([label_map == level for level in levels]).reshape(-1, *label_map.shape)
    return {"masks": torch.from_numpy(masks), "labels": torch.tensor(levels)}


@pytest.mark.parametrize("matched", [300, 600, 900])
def test_the_lower_bound_of_ap50_is_reached_by_near_misses_that_rank_first(matched):
    found = average_precision(np.arange(1000) >= 1000 - matched, 1000)
    low, _ = coco_ap_bounds((matched + (1000 - matched) * 2 / 3) / 1000, COCO["COCO AP50"])
    assert low == pytest.approx(100 / 101 * (matched / 1000) ** 2)
    assert low <= found <= low + 0.01


def test_the_upper_bound_is_reached_where_every_vertebra_just_reaches_the_last_threshold():
    assert coco_ap_bounds(STEPS[-1], COCO["COCO AP@[.50:.95]"])[1] == pytest.approx(1)


@pytest.mark.parametrize(
    "table, words",
    [
        pytest.param(one(average=76.66), "'mine': .*'map': 76.66.* from 0 to 1: write 92 %", id="%"),
        pytest.param(one(f1="84%"), "'f1': '84%'.* write 92 % as 0.92", id="% as text"),
        pytest.param(one(recall="0,92"), "'recall': '0,92'.* with a decimal point", id="comma"),
        pytest.param(one(f1="n/a"), "'f1': 'n/a'.* or leave the model out", id="text"),
        pytest.param(one(f1=-0.1), "'f1': -0.1.* from 0 to 1", id="negative"),
        pytest.param(one(f1=float("nan")), "'f1': nan", id="missing"),
        pytest.param(one(f1=None), "'f1': None", id="nothing"),
        pytest.param({"mine": {"dice": 0.9}}, "'dice': 0.9.* cannot be examined", id="no such column"),
        pytest.param({}, "a table of no model cannot be examined", id="empty"),
        pytest.param(pd.DataFrame(one()["mine"], index=["a", "a"]), "{'a': .* each model once", id="duplicate"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_results_is_refused_with_the_remedy(table, words):
    with pytest.raises(StudyError, match=words):
        examine(table)


def test_a_table_is_read_from_csv_as_it_stands(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "\ufeffmodel, precision, recall, f1, map, year\nmine, 0.9, 0.6, 0.72, 0.75, 2024\n", encoding="utf-8"
    )
    table = read_table(path)
    assert table.to_dict("index") == {"mine": {"precision": 0.9, "recall": 0.6, "f1": 0.72, "map": 0.75}}
    assert examine(table).equals(examine(one(0.9, 0.6, 0.72, 0.75)))


HEADER = "model,precision,recall,f1,map\n"


@pytest.mark.parametrize(
    "text, words",
    [
        pytest.param("", "cannot be read .*; give a text file", id="empty"),
        pytest.param(HEADER, "cannot be examined; give one row a model", id="a header alone"),
        pytest.param("model;precision\na;0.9\n", "cannot be examined", id="semicolons"),
        pytest.param(HEADER + 'a,"0,98",1,1,1\n', "'precision': '0,98'", id="commas in quotes"),
        pytest.param(HEADER + "a,0.98\n", "'recall': nan", id="a row cut short"),
    ],
)
def test_a_csv_that_is_no_such_table_is_refused(tmp_path, text, words):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(StudyError, match=words):
        read_table(tmp_path / "results.csv")


@pytest.mark.parametrize("content", [pytest.param(None, id="absent"), pytest.param(b"PK\x03\xff\xfe", id="a workbook")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content):
    if content:
        (tmp_path / "results.csv").write_bytes(content)
    with pytest.raises(StudyError, match=r"cannot be read .*give a text file in UTF-8"):
        read_table(tmp_path / "results.csv")
