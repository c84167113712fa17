"""From files to one series: grouping, the rule of choice, and a reason for everything else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_series import SECRETS, made_series, made_slice, moved, write
from pydicom import Dataset

from t3d.ct.dicom import Choice, choose, list_series
from t3d.ct.dicom.choice import sharpness
from t3d.ct.dicom.listing import kept_out
from t3d.ct.guard import RefusedFile, RefusedGrid


def chosen(folder: Path, *several: Sequence[Dataset], **options: Any) -> Choice:
    return choose(list_series(write(folder, *several)), **options)


def reason_of_other(choice: Choice) -> str:
    (other,) = choice.others
    return other.reason


# ---- grouping ------------------------------------------------------------------------------


def test_series_are_grouped_by_identifier_and_slices_counted(tmp_path: Path) -> None:
    listing = list_series(write(tmp_path, made_series(9), made_series(8, series="2")))
    assert sorted(len(series.frames) for series in listing.series) == [8, 9]
    assert listing.left_out == ()


def test_what_is_no_dicom_or_cut_off_is_counted_by_reason(tmp_path: Path) -> None:
    paths = write(tmp_path, made_series(8))
    whole = paths[0].read_bytes()
    for number, content in enumerate([b"read me", b"read me too", b"", whole[:300]]):
        (tmp_path / f"junk{number}").write_bytes(content)
    listing = list_series(tmp_path.iterdir())
    assert [len(series.frames) for series in listing.series] == [8]
    assert {(left.count, left.reason, left.message) for left in listing.left_out} == {
        (2, "not_dicom", "a file is no DICOM file"),
        (1, "unreadable", "a file is empty"),
        (1, "unreadable", "a file names neither its series nor its frame of reference"),
    }


def test_identifiers_enter_neither_repr_nor_lines(tmp_path: Path) -> None:
    choice = chosen(tmp_path, made_series(8), made_series(8, series="2", ConvolutionKernel="B70f"))
    shown = repr(choice) + "\n".join(choice.lines) + repr(list_series(tmp_path.iterdir()))
    for secret in (*SECRETS.values(), "1.2.826", str(tmp_path)):
        assert secret not in shown


def test_an_empty_series_identifier_falls_back_to_the_frame_of_reference(tmp_path: Path) -> None:
    (series,) = list_series(write(tmp_path, made_series(8, SeriesInstanceUID=""))).series
    assert len(series.frames) == 8
    assert "SeriesInstanceUID missing" in series.frames[0].notes[0]


def test_without_any_identifier_files_are_left_out(tmp_path: Path) -> None:
    slices = made_series(8, SeriesInstanceUID="", FrameOfReferenceUID="")
    listing = list_series(write(tmp_path, slices))
    assert listing.series == ()
    assert [(left.count, left.reason) for left in listing.left_out] == [(8, "unreadable")]


def test_two_fields_of_view_under_one_identifier_become_two_series(tmp_path: Path) -> None:
    wide = made_series(9)
    narrow = made_series(8, PixelSpacing=[0.25, 0.35])
    choice = chosen(tmp_path, wide, narrow)
    assert len(choice.series.frames) == 9
    assert "covers less" in reason_of_other(choice)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"PixelSpacing": [0.5, 0.8]}, "pixel spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "orientation"),
        ({"ConvolutionKernel": "B80f"}, "kernel"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}, "image type"),
    ],
)
def test_a_stray_slice_makes_its_series_unfit(
    change: dict[str, Any], word: str, tmp_path: Path
) -> None:
    def stray(dataset: Dataset, k: int) -> None:
        for keyword, value in change.items() if k == 9 else ():
            setattr(dataset, keyword, value)

    with pytest.raises(RefusedGrid, match=f"9 and 1 slices .* differ in {word}") as refusal:
        chosen(tmp_path, made_series(10, change=stray))
    assert refusal.value.reason == "mixed_series"


def test_a_scout_under_the_same_identifier_harms_nothing(tmp_path: Path) -> None:
    scout = made_slice(
        20,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    choice = chosen(tmp_path, [scout, *made_series(8)])
    assert len(choice.series.frames) == 8
    assert reason_of_other(choice) == "a localizer"


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_one_identifier_over_two_patients_or_studies_is_refused(
    keyword: str, tmp_path: Path
) -> None:
    other = made_series(16)[8:]
    for dataset in other:
        setattr(dataset, keyword, "1.2.3")
    with pytest.raises(RefusedGrid, match="one series identifier covers 2") as refusal:
        chosen(tmp_path, made_series(8), other)
    assert refusal.value.reason == "mixed_series"


def phases(count: int, keyword: str) -> list[Dataset]:
    """Make two passes over the same positions under one identifier."""
    first = made_series(count, **{keyword: 1})
    second = made_series(count, **{keyword: 2})
    for dataset in second:
        dataset.SOPInstanceUID += ".2"
        dataset.PixelData = bytes(reversed(dataset.PixelData))
    return [*first, *second]


@pytest.mark.parametrize(
    ("keyword", "word"),
    [("AcquisitionNumber", "acquisition"), ("TemporalPositionIdentifier", "time")],
)
def test_two_passes_over_the_same_positions_become_two_series(
    keyword: str, word: str, tmp_path: Path
) -> None:
    paths = write(tmp_path, phases(8, keyword))
    choice = choose(list_series(paths))
    assert choice.series.phase == f"{word} 1"
    assert "later by number or phase" in reason_of_other(choice)
    assert choose(list_series(paths), phase=f"{word} 2").series.phase == f"{word} 2"


def test_neighbouring_acquisitions_that_share_a_slice_stay_one_series(tmp_path: Path) -> None:
    below = made_series(9, AcquisitionNumber=1)
    above = made_series(17, AcquisitionNumber=2)[8:]
    for dataset in above:
        dataset.SOPInstanceUID += ".2"
    (series,) = list_series(write(tmp_path, below, above)).series
    assert (len(series.frames), series.phase) == (18, "")


def test_slices_that_are_acquisitions_of_their_own_stay_one_series(tmp_path: Path) -> None:
    def number(dataset: Dataset, k: int) -> None:
        dataset.AcquisitionNumber = k + 1

    (series,) = list_series(write(tmp_path, made_series(10, change=number))).series
    assert (len(series.frames), series.phase) == (10, "")


# ---- what is out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Modality": "MR"}, "not CT (MR)"),
        ({"Modality": "SEG"}, "a segmentation"),
        ({"Modality": "RTSTRUCT"}, "a radiotherapy structure set"),
        ({"Modality": "SR"}, "a structured report (a dose report, measurements)"),
        ({"Modality": None}, "not CT (no modality)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3"}, "a secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "no CT image by its class"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a screen shot"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]}, "a perfusion map"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, "derived from other images"),
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "derived from other images"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, ""),  # what lossy compression makes
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}, ""),
        ({"ImageType": None}, ""),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, ""),
    ],
)
def test_what_is_no_stack_of_ct_slices_is_kept_out_in_words(
    values: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (series,) = list_series(write(tmp_path, made_series(8, **values))).series
    assert kept_out(series) == reason


def test_a_single_slice_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(RefusedGrid, match="one slice is no volume") as refusal:
        chosen(tmp_path, made_series(1))
    assert refusal.value.reason == "too_small"


def test_a_refusal_names_every_series_and_every_kind_of_file_left_out(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        made_series(8, Modality="MR"),
        made_series(8, series="2", SeriesNumber=9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RefusedFile) as refusal:
        choose(list_series([*paths, tmp_path / "notes.txt"]))
    assert refusal.value.reason == "not_ct"
    for part in ("series 3 B40f (8 slices): not CT (MR)", "series 9 B40f", "a localizer", "1 file"):
        assert part in refusal.value.found


def test_usable_series_of_two_studies_are_not_chosen_between(tmp_path: Path) -> None:
    other = made_series(8, series="2", SeriesNumber=4, StudyInstanceUID="1.2.3")
    paths = write(tmp_path, made_series(8), other)
    with pytest.raises(RefusedFile, match="2 studies") as refusal:
        choose(list_series(paths))
    assert refusal.value.reason == "mixed_series"
    assert choose(list_series(paths), series_number=4).series.series_number == 4


# ---- the rule ------------------------------------------------------------------------------


def uneven(dataset: Dataset, k: int) -> None:
    moved(dataset, z=3.0 if k > 4 else 0.0)


def sagittal(dataset: Dataset, k: int) -> None:
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.ImagePositionPatient = [2.0 * k, -20, 30]


def finer(dataset: Dataset, k: int) -> None:
    dataset.ImagePositionPatient = [-10, -20, 30 + 1.0 * k]


DERIVED = {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}


@pytest.mark.parametrize(
    ("winner", "loser", "reason"),
    [
        # Each loser is better on every later line of the rule than the one it loses on.
        (made_series(10, change=uneven), made_series(7, series="2"), "too few slices (7"),
        (made_series(10, change=sagittal), made_series(20, series="2", change=uneven), "uneven"),
        (made_series(10, **DERIVED), made_series(10, series="2", change=sagittal), "not axial"),
        (made_series(10), made_series(20, series="2", **DERIVED), "derived, where an original"),
        (
            made_series(20, ConvolutionKernel="B70f"),
            made_series(12, series="2", change=finer),
            "covers less: 12 x 3 mm (height x field of view), taken 40 x 3",
        ),
        (
            made_series(10),
            made_series(20, series="2", change=finer, ConvolutionKernel="B70f"),
            "other kernel: B70f, taken B40f",
        ),
        (
            made_series(19, change=finer),
            made_series(10, series="2"),
            "thicker: 2.00 mm apart, taken 1.00",
        ),
        (made_series(10), made_series(9, series="2"), "fewer slices: 9, taken 10"),
        (
            made_series(10, SeriesNumber=4),
            made_series(10, series="0", SeriesNumber=5),
            "equal to the one taken, later by number or phase",
        ),
    ],
)
def test_each_line_of_the_rule_decides_where_the_lines_above_are_equal(
    winner: list[Dataset], loser: list[Dataset], reason: str, tmp_path: Path
) -> None:
    choice = chosen(tmp_path, loser, winner)
    assert choice.series.series_uid == winner[0].SeriesInstanceUID
    assert reason in reason_of_other(choice)


def test_the_choice_does_not_depend_on_the_order_or_the_names_of_files(tmp_path: Path) -> None:
    several = [
        made_series(8, ConvolutionKernel="B70f"),
        made_series(10, series="2", SeriesNumber=2),
        made_series(10, series="3", SeriesNumber=2),
        made_series(9, series="4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        made_series(1, series="5"),
    ]
    expected = chosen(tmp_path / "a", *several)
    for seed in range(3):
        mixed = [dataset for series in several for dataset in series]
        random.Random(seed).shuffle(mixed)
        paths = write(tmp_path / f"b{seed}", mixed)
        random.Random(seed).shuffle(paths)
        again = choose(list_series(paths))
        assert again.lines == expected.lines
        assert again.series.series_uid == expected.series.series_uid


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("B40f", 0),
        ("Br38f", 0),
        ("I31f", 0),
        ("STANDARD", 0),
        ("STD+", 0),
        ("B", 0),
        ("FC13", 0),
        ("B70f", 2),
        ("Bl57", 2),
        ("LUNG", 2),
        ("L", 2),
        ("FC51", 2),
        ("", 1),
        ("iDose 4", 1),
    ],
)
def test_kernels_are_sorted_into_soft_unknown_and_sharp(kernel: str, kind: int) -> None:
    assert sharpness(kernel) == kind


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 3),
        ({"kernel": "b70F"}, 4),
        ({"kernel": "sharp"}, 4),
        ({"kernel": "soft"}, 3),
        ({"phase": "contrast"}, 5),
        ({"phase": "plain"}, 3),
        ({"phase": "venous"}, 5),
        ({"series_number": 4}, 4),
        ({"series_number": 6}, 6),  # derived, but asked for by number
    ],
)
def test_kernel_phase_and_series_number_can_be_asked_for(
    options: dict[str, Any], number: int, tmp_path: Path
) -> None:
    contrast = {"ContrastBolusAgent": "APPLIED", "SeriesDescription": "Thorax VENOUS 2.0"}
    choice = chosen(
        tmp_path,
        made_series(8),
        made_series(8, series="2", SeriesNumber=4, ConvolutionKernel="B70f"),
        made_series(8, series="3", SeriesNumber=5, **contrast),
        made_series(8, series="4", SeriesNumber=6, ImageType=["DERIVED", "SECONDARY", "MPR"]),
        **options,
    )
    assert choice.series.series_number == number
    assert len(choice.others) == 3


def test_asking_for_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(RefusedFile, match="another kernel than Br36") as refusal:
        chosen(tmp_path, made_series(8), kernel="Br36")
    assert refusal.value.reason == "not_asked_for"


# ---- real folders --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "taken", "others"),
    [
        ("chest_lungpetctdx_A0001", "series 3 B (64 slices)", {"too few slices (2, at least 8)"}),
        ("chest_lungpetctdx_A0002", "series 3 B40f (30 slices)", {"one slice is no volume"}),
        (
            "multiframe",
            "series 123456 (3 slices)",
            {"a perfusion map", "not CT (MR)"},
        ),
    ],
)
def test_real_folders_give_the_series_of_the_index_and_reasons_for_the_rest(
    folder: str, taken: str, others: set[str], real_data: Path
) -> None:
    files = [f for f in (real_data / "dicom" / folder).rglob("*.dcm") if f.is_file()]
    choice = choose(list_series(files))
    assert choice.series.label == taken
    assert {other.reason for other in choice.others} == others


@pytest.mark.parametrize(
    ("folder", "reasons"),
    [
        ("chest_3slice_with_seg_SEG", {"a segmentation"}),
        (
            "not_ct_volume",
            {
                "a localizer",
                "a radiotherapy dose",
                "a radiotherapy plan",
                "a radiotherapy structure set",
                "a structured report (a dose report, measurements)",
                "not CT (DX)",
                "not CT (MR)",
                "not CT (NM)",
            },
        ),
    ],
)
def test_nothing_that_is_no_ct_volume_is_taken(
    folder: str, reasons: set[str], real_data: Path
) -> None:
    listing = list_series((real_data / "dicom" / folder).iterdir())
    assert {kept_out(series) for series in listing.series} == reasons
    with pytest.raises(RefusedFile) as refusal:
        choose(listing)
    assert refusal.value.reason == "not_ct"


def test_the_dicomdir_tree_holds_two_patients_whose_scouts_and_films_are_out(
    real_data: Path,
) -> None:
    files = [f for f in (real_data / "dicom" / "tiny_dicomdir").rglob("*") if f.is_file()]
    listing = list_series(files)
    out = [kept_out(series) for series in listing.series]
    assert sorted(filter(None, out)) == ["a localizer", "a localizer", "not CT (CR)"]
    with pytest.raises(RefusedFile, match="2 studies"):
        choose(listing)
    assert len(choose(listing, series_number=5).series.frames) == 5
