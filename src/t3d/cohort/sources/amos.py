"""AMOS22 as it lies on a user's disk: abdominal CT with 15 organs; its MR is left out.

    amos22/dataset.json
    amos22/{imagesTr,labelsTr,imagesVa,labelsVa,imagesTs}/amos_0001.nii.gz

CT and MR are told apart by the number in the name, with another limit in each list. What the label
numbers mean is read from dataset.json. `validation` is our test split, since the labels of the
official test images are kept back; a fold file can say otherwise. Each case is a patient. Facts of
the layout: docs/howto/amos.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from t3d.cohort.labelled import TABLE, Case, CaseList, CasePlan, Folds, studies_of
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares, split_of
from t3d.errors import SourceError
from t3d.types import Study

MASK = "organs"
LAST_CT: Mapping[str, int] = {"training": 410, "validation": 409, "test": 500}
"""Highest number of a CT in each list; what lies above is MR."""

PUBLISHED: Mapping[str, int] = {"training": 200, "validation": 100}
"""CT with labels in the release after the challenge."""

_NUMBER = re.compile(r"amos_([0-9]+)")


class Amos(ReadAtOnce):
    """AMOS22 as a source.

    Args:
        root: The folder that holds dataset.json.
        folds: A fold file; "" = the official lists.
        fold: Which entry of it, where it is a list.
        dev_share: Share of the training cases in dev, by a seeded hash, without a fold file.
        seed: Seed of that hash.
        unlabelled: List the official test images, whose labels are kept back, in no split.

    Raises:
        SourceError: No dataset.json, one of another form, or a dev_share that leaves no train.

    Source:
        arXiv:2206.08023; limits of the numbers: nnU-Net's Dataset218_Amos2022_task1.py; counts:
        bowang-lab/MedSAM thread 402; validation as test: our choice, as peers evaluate.

    Example:
        >>> source = Amos("amos22", dev_share=0.1)  # doctest: +SKIP
    """

    kind = "amos"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way."""
        return (root / TABLE).is_file() and (root / "imagesVa").is_dir()

    def __init__(
        self,
        root: str | Path,
        *,
        folds: str = "",
        fold: int = 0,
        dev_share: float = 0.0,
        seed: int = 0,
        unlabelled: bool = False,
    ) -> None:
        self.root = Path(root)
        check_shares("Amos", dev=dev_share)
        CaseList(self.root)
        self._plan = CasePlan(
            mask=MASK,
            not_ct=_not_ct,
            split=lambda case: (
                split_of(case.case_id, dev=dev_share, seed=seed)
                if case.listed == "training"
                else "test"
            ),
            split_by=f"official lists, dev {dev_share:g} of training, seed {seed}",
            folds=Folds(Path(folds), fold=fold) if folds else None,
            unlabelled=unlabelled,
        )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="as on the record (Zenodo 7262581; CC BY 4.0 by our reading): read it there",
            citation="Ji et al., AMOS, arXiv:2206.08023",
        )

    def label_names(self) -> dict[int, str]:
        """Give the meaning of each number in a label map, as dataset.json tells it."""
        return CaseList(self.root).label_names

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read dataset.json; studies come in order of their ids."""
        return studies_of(CaseList(self.root), self._plan)

    def differences(self) -> tuple[str, ...]:
        """Compare the labelled CTs with the published counts; () = this copy is whole.

        An earlier record of the data (Zenodo 7155725) has other content.
        """
        counts = Counter(
            case.listed
            for case in CaseList(self.root).cases
            if case.label is not None and not _not_ct(case)
        )
        return tuple(
            f"{listed}, CT with labels: {counts[listed]}, published {published}"
            for listed, published in PUBLISHED.items()
            if counts[listed] != published
        )


def _not_ct(case: Case) -> str:
    """Say why a case is no CT, by its number; "" where it is one."""
    match = _NUMBER.fullmatch(case.case_id)
    if match is None:
        raise SourceError(
            f"{TABLE}: a case of {case.listed} whose name is none of AMOS's",
            expected="amos_<number>.nii.gz: the number tells CT from MR",
            fix="check which data set this is; for others use the source msd",
        )
    last = LAST_CT[case.listed]
    return "" if int(match[1]) <= last else f"MR by its number: CT of {case.listed} ends at {last}"
