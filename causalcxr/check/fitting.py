"""The mechanisms of the attributes, fitted as training fits them, to be compared with rows they haven't seen."""

from pathlib import Path
from tempfile import TemporaryDirectory

from causalcxr.config import Config
from causalcxr.data.cohort import Cohort
from causalcxr.data.rows import Table
from causalcxr.runs import Run
from causalcxr.scm import StructuralCausalModel
from causalcxr.training.loop import Fit
from causalcxr.training.objectives import AttributesObjective
from causalcxr.training.pipeline import flushed_denormals, launch

__all__ = ["fit_mechanisms"]


def fit_mechanisms(cohort: Cohort, config: Config) -> StructuralCausalModel:
    """The stage `attributes` of training by itself, on the split `train`; no run folder is left behind.

    Raises TrainingError: too many steps that are not finite.
    """
    fabric = launch(config.train)
    with TemporaryDirectory() as folder, flushed_denormals():
        scm = Run(Path(folder), config, cohort.graph).build_model()
        train = cohort.split("train")
        scm.calibrate(train.attributes)
        Fit(
            name="attributes",
            objective=AttributesObjective(scm),
            train=Table(train.attributes),
            val=Table(cohort.split("val").attributes),
            stage=config.train.attributes,
            config=config.train,
            fabric=fabric,
            folder=Path(folder),
            record=lambda values: None,
        ).run()
    return scm.cpu().eval().requires_grad_(False)
