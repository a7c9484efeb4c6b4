"""CLAIM 2024, the checklist for artificial intelligence in medical imaging: 44 items, answered from a study's folder.

Source: Tejani et al. 2024, doi 10.1148/ryai.240300; the numbers, sections and topics of the items are those of its
companion site, rsna.github.io/claim. What an item asks is in our words: for a submission, fill in the original.
What no file of a study can tell is OPEN, for its authors to fill in.
"""

from typing import NamedTuple

from lumbar_utils.output.report.facts import facts
from lumbar_utils.output.report.results import Results

STATUSES = ("answered", "partly", "open", "not done", "does not apply", "not yet")


class Item(NamedTuple):
    """One item. answer : {facts} are filled in. drawn : status and answer instead, where the images are synthetic.

    needs : files of the study without which the item is answered `not yet`, {network} standing for each network.
    """

    number: int
    section: str
    asks: str
    status: str
    answer: str
    drawn: tuple[str, str] | None = None
    needs: tuple[str, ...] = ()


class Answer(NamedTuple):
    status: str
    text: str


def answers(results: Results) -> list[Answer]:
    """The answer to each of ITEMS, in order."""
    known = facts(results)
    return [_answer(item, results, known) for item in ITEMS]


def _answer(item: Item, results: Results, known: dict[str, str]) -> Answer:
    needs = dict.fromkeys(name.format(network=network) for name in item.needs for network in results.networks)
    lacking = [name for name in needs if not results.has(name)]
    if results.stale and any(name.startswith("tables/") for name in needs):
        return Answer("not yet", f"The results are stale: {results.stale}.")
    if lacking:
        return Answer("not yet", f"The study is not finished: {', '.join(lacking)} is missing.")
    status, text = item.drawn if item.drawn and results.data["synthetic"] else (item.status, item.answer)
    return Answer(status, text.format_map(known))


NOBODY = ("does not apply", "The images are drawn by a program: no person, no scanner and no annotator is behind them.")
SCORES, PAIRS, ERRORS = "tables/table2.csv", "tables/comparisons.csv", "tables/errors.csv"
NETS = ("{network}/fit.json",)

ITEMS = (
    Item(
        1, "Title", "Does the title say that this is a work of artificial intelligence, and of which kind?",
        "answered", "Deep learning: CITATION.cff and the report's heading name the networks that are compared.",
    ),
    Item(
        2, "Abstract", "Is there a summary of design, methods, results and conclusions?",
        "partly", "The report's first part gives data, result and conclusion. OPEN: a structured abstract.",
    ),
    Item(
        3, "Introduction", "What is the background, and what is the method meant to be used for?",
        "partly", "A published comparison (Kurachka, Ren, Wang) is repeated, for research; no clinical use is meant. "
        "OPEN: the clinical background.",
    ),
    Item(
        4, "Introduction", "What are the aims and hypotheses?",
        "answered", "Which of {models} segments and names {levels} best, by how much, and which claims of the paper "
        "hold: the report's part on claims lists each.",
    ),
    Item(
        5, "Study design", "Was the study prospective or retrospective?",
        "partly", "The images existed before this study used them. OPEN: for what study they were taken.", NOBODY,
    ),
    Item(
        6, "Study design", "What was the study's goal?",
        "answered", "To reproduce a comparison of three networks at semantic segmentation, and to say how far to "
        "believe it. No superiority or use in patients is to be shown.",
    ),
    Item(
        7, "Data", "Where do the data come from?",
        "partly", "{name}; licence: {licence}; fingerprint {data_fingerprint}. Citation: {citation}.",
        ("answered", "{name}, drawn by lumbar_utils/phantom/phantom.py from the settings on record; licence: "
         "{licence}; fingerprint {data_fingerprint}."),
    ),
    Item(
        8, "Data", "Which cases were included and excluded, by which criteria?",
        "partly", "Files that fail the audit stop the study; {findings}. Left out when volumes were cut: {left_out}. "
        "OPEN: by which criteria the patients were chosen before.",
        ("answered", "None was excluded. Anatomy, findings and their rates: lumbar_utils/phantom/anatomy.py."),
    ),
    Item(
        9, "Data", "How were the data preprocessed?",
        "answered", "8-bit grey images on {size} pixels, grey values normalised by {normalisation}; training images "
        "varied: {augmentation}. See lumbar_utils/data/decoding.py, networks/augmentation.py.",
    ),
    Item(
        10, "Data", "Were subsets or parts of the raw data selected, and how?",
        "partly", "Images are used whole. Where the source was volumes, {slices} slice(s) about the middle one were "
        "cut by program. OPEN: what was selected before the data reached this study.",
        ("does not apply", "There are no raw data that a part was taken of."),
    ),
    Item(
        11, "Data", "How were the data de-identified?",
        "open", "OPEN: it was done, or not, before the data reached this study. Names of patients are kept as given.",
        NOBODY,
    ),
    Item(
        12, "Data", "How were missing data handled?",
        "answered", "Nothing is imputed. A level that is not annotated is neither learned nor scored; a vertebra that "
        "is in neither map has no score; where spacing is unknown, distances are in pixels. Not annotated: {absent}.",
    ),
    Item(
        13, "Data", "How were the images acquired?",
        "open", "Side of a pixel: {spacing}. OPEN: scanner, field strength, sequence and its parameters.", NOBODY,
    ),
    Item(
        14, "Reference standard", "How is the reference standard defined and obtained?",
        "partly", "The masks that the data set came with, for {levels}. OPEN: how they were made.",
        ("answered", "The anatomy that the program drew, for {levels}: known, not observed."),
    ),
    Item(
        15, "Reference standard", "Why was this reference standard chosen?",
        "open", "This study took it because it came with the data. OPEN: why the data's authors chose it.",
        ("answered", "Of a drawn image the truth is known."),
    ),
    Item(
        16, "Reference standard", "Who annotated, and how qualified and prepared?",
        "open", "OPEN: the data's authors know.", NOBODY,
    ),
    Item(
        17, "Reference standard", "How was the test set annotated, with what tool?",
        "open", "The test set is a part of the data, annotated like the rest as far as this study knows. OPEN: tool, "
        "instructions, corrections.", NOBODY,
    ),
    Item(
        18, "Reference standard", "How much do annotators vary, between and within themselves?",
        "not done", "One mask an image: it cannot be measured from these data. OPEN: what the data's authors say.",
        NOBODY,
    ),
    Item(
        19, "Data partitions", "How were the data assigned to partitions?",
        "answered", "{split_words}: {sides}. Seed {seed}. See split.csv, lumbar_utils/data/split.py.",
    ),
    Item(
        20, "Data partitions", "At what level are the partitions disjoint?",
        "answered", "Of patients, as cases.csv names them; a split that tears a patient apart is refused, and images "
        "that are alike under two names are findings of the audit.",
    ),
    Item(
        21, "Testing data", "What sample size was intended, and why?",
        "not done", "None was planned: the test set is what the data allow. How many patients it would take to tell "
        "the networks apart is in the report's part `How sure`, from the differences found.",
    ),
    Item(
        22, "Model", "Is the model described in full: inputs, layers, outputs?",
        "answered", "{parameters}; one grey image of {size} pixels in, a softmax over background and six levels out. "
        "Diagrams: figures fig1 to fig3; code: lumbar_utils/networks/models.py.", None, NETS,
    ),
    Item(
        23, "Model", "Which libraries and packages, in which versions?",
        "answered", "{packages}; Python and hardware: {environment}; the code at commit {commit}.",
    ),
    Item(
        24, "Model", "How were the parameters initialised?",
        "answered", "{start}; seed {seed}.",
    ),
    Item(
        25, "Training", "How was it trained: augmentation, hyper-parameters, monitoring?",
        "answered", "{epochs} epochs of all training images, or of {images_per_epoch} by seeing them several times, in "
        "steps of {batch_size}, loss {loss}, schedule {schedule}, highest learning rate {learning_rate}, weight decay "
        "{weight_decay}, augmentation {augmentation}. All settings: study.json; each epoch: history.csv.",
    ),
    Item(
        26, "Training", "How was the final model selected?",
        "answered", "The epoch with the highest F1 on the validation patients: {best}. Test images were {seen}.",
        None, NETS,
    ),
    Item(27, "Training", "Were models combined into an ensemble?", "answered", "No. {tta}"),
    Item(
        28, "Evaluation", "Which metrics of performance, and why these?",
        "answered", "Those of the paper under two definitions of mAP, and more: the report's part `Every metric` "
        "defines each; `Under every definition` shows what the choice changes.",
    ),
    Item(
        29, "Evaluation", "Which measures of significance and uncertainty?",
        "answered", "95 % BCa bootstrap intervals over patients, Wilcoxon's and a permutation test on pairs of "
        "patients, corrected after Holm; no claim is decided on fewer than ten patients.",
    ),
    Item(
        30, "Evaluation", "Is there an analysis of robustness or sensitivity?",
        "answered", "Noise, bias field, blur, contrast and rotation: figure robustness; definitions: figure "
        "multiverse; parts of the test set: figure groups; seeds and splits, of a "
        "grid: figure runs.",
        None, ("figures/robustness.png", "figures/multiverse.png", "figures/groups.png"),
    ),
    Item(
        31, "Evaluation", "Which methods of explanation, and how validated?",
        "not done", "None. Whether stated probabilities can be believed is measured: figure reliability.",
    ),
    Item(
        32, "Evaluation", "How was it evaluated on internal data?",
        "partly", "On {test}, of the same source as the training data. Scores on the training set itself are not "
        "computed; training and validation loss are in the learning curves.", None, (SCORES,),
    ),
    Item(
        33, "Evaluation", "How was it tested on external data? If it was not, why?",
        "not done", "Not by this study, whose split is within one data set; this limits what it says. "
        "`python -m lumbar_utils predict` applies a trained network to other images.",
    ),
    Item(
        34, "Evaluation", "Is a clinical trial registered?",
        "open", "OPEN: this study registers none; whether the data are of one is not known to it.", NOBODY,
    ),
    Item(
        35, "Results: data", "How many patients and images were included and excluded?",
        "partly", "{patients} patients, {cases} images: {sides}. Left out when volumes were cut: {left_out}. OPEN: "
        "a flow diagram, and what was excluded before.",
        ("answered", "{patients} drawn patients, {cases} images, none excluded: {sides}."),
    ),
    Item(
        36, "Results: data", "What are the demographic and clinical characteristics, in each partition?",
        "open", "OPEN: sex, age and diagnosis are not read by this study. Contrast, spacing and findings, where "
        "cases.csv has them: figures data_overview and groups.", NOBODY,
    ),
    Item(
        37, "Results: performance", "How well does it do, with which uncertainty, in which subgroups?",
        "answered", "Table II with intervals where {test_patients} test patients allow one; `Every metric`; subgroups "
        "in figure groups. {note}", None, (SCORES,),
    ),
    Item(
        38, "Results: performance", "For classification: accuracy with its precision, calibration, class imbalance?",
        "does not apply", "The task is segmentation. Nearest to it: names given to vertebrae (figure confusion), "
        "calibration (figure reliability), the mean over levels instead of pixels.",
    ),
    Item(
        39, "Results: performance", "Where does it fail, and how?",
        "answered", "Tables errors and groups, figures errors, confusion and worst: found or not, named rightly or "
        "shifted, outlined well or not, the worst cases in words. {note}", None, (ERRORS,),
    ),
    Item(
        40, "Discussion", "What are the limitations?",
        "partly", "The report's part `What this does not say`. OPEN: what the authors know beyond it.",
    ),
    Item(
        41, "Discussion", "What does it mean for practice?",
        "open", "Nothing may be concluded from this program's output alone. OPEN: the authors' view.",
        ("answered", "Nothing: the images are drawn."),
    ),
    Item(
        42, "Other information", "Where is the full protocol, or further technical detail?",
        "partly", "Executed notebooks, settings and code at commit {commit}. No protocol was registered beforehand.",
    ),
    Item(
        43, "Other information", "Are software, trained model and data available?",
        "partly", "Software: MIT licence. Trained networks: <network>/checkpoints/best.ckpt of this folder. Data: "
        "{licence}. OPEN: addresses where the authors publish them.",
    ),
    Item(44, "Other information", "Who funded the work, and what part did funders have?", "open", "OPEN."),
)  # fmt: skip
