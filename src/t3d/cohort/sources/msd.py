"""One task of the Medical Segmentation Decathlon, e.g. Task06_Lung.

    Task06_Lung/dataset.json
    Task06_Lung/{imagesTr,labelsTr,imagesTs}/lung_001.nii.gz

The list in dataset.json is the manifest. No validation split is official: cases are drawn by a
seeded hash, or a fold file says. Each case is a patient. Label maps hold the task's label numbers
(`label_names`) and are brought to a model's grid with nearest neighbours. Facts of the layout:
docs/howto/msd.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t3d.cohort.labelled import TABLE, CaseList, CasePlan, Folds, studies_of
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares, split_of
from t3d.types import Study

MASK = "labels"


class Msd(ReadAtOnce):
    """One task of the Decathlon as a source.

    Args:
        root: The folder that holds dataset.json.
        folds: A fold file; "" = cases are drawn.
        fold: Which entry of it, where it is a list.
        dev_share: Share of labelled cases in dev, where cases are drawn.
        test_share: Share in test; 0.2 gives about the 50 + 13 that peers use for Task06.
        seed: Seed of the draw.
        unlabelled: List the images whose labels are kept back, in no split.

    Raises:
        SourceError: No dataset.json, or one of another form; shares that leave no train.

    Source:
        arXiv:2106.05735; shadow files and string entries: nnU-Net's convert_MSD_dataset.py; the
        draw is our choice.

    Example:
        >>> source = Msd("Task06_Lung", folds="lung_fold0.json")  # doctest: +SKIP
    """

    kind = "msd"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way."""
        return (
            all((root / name).exists() for name in (TABLE, "imagesTr", "labelsTr"))
            and not (root / "imagesVa").is_dir()
        )

    def __init__(
        self,
        root: str | Path,
        *,
        folds: str = "",
        fold: int = 0,
        dev_share: float = 0.0,
        test_share: float = 0.2,
        seed: int = 0,
        unlabelled: bool = False,
    ) -> None:
        self.root = Path(root)
        check_shares("Msd", dev=dev_share, test=test_share)
        not_ct = _not_ct(CaseList(self.root).told)
        self._plan = CasePlan(
            mask=MASK,
            not_ct=lambda _: not_ct,
            split=lambda case: split_of(case.case_id, dev=dev_share, test=test_share, seed=seed),
            split_by=f"drawn, dev {dev_share:g}, test {test_share:g}, seed {seed}",
            folds=Folds(Path(folds), fold=fold) if folds else None,
            unlabelled=unlabelled,
        )

    @property
    def terms(self) -> Terms:
        """Licence and citation; the task's own licence is in its dataset.json."""
        told = CaseList(self.root).told
        return Terms(
            licence=str(told.get("licence") or told.get("license") or "CC BY-SA 4.0"),
            citation="Antonelli et al., The Medical Segmentation Decathlon, arXiv:2106.05735",
        )

    def label_names(self) -> dict[int, str]:
        """Give the meaning of each number in a label map, as dataset.json tells it."""
        return CaseList(self.root).label_names

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read dataset.json; studies come in order of their ids."""
        return studies_of(CaseList(self.root), self._plan)


def _not_ct(told: Mapping[str, Any]) -> str:
    """Say why a task is no CT; "" where it is one."""
    modality = told.get("modality", {})
    if isinstance(modality, dict) and [str(v).upper() for v in modality.values()] == ["CT"]:
        return ""
    return f"{TABLE} does not name CT as its only modality"
