"""The spec of a study: the fields of a study file, their defaults and rules.

Every default is a value here, so the resolved copy stored with a study shows all of them.
"""

from gitdist.spec.base import unknown_name
from gitdist.spec.data import DataSpec, GroupsSpec, ProfileSpec
from gitdist.spec.dimension import Dimension
from gitdist.spec.generator import (
    GeneratorSpec,
    IdentitySpec,
    MunitSpec,
    OracleSpec,
    PluginSpec,
    PretrainedSpec,
    RandAugmentSpec,
    StreamSpec,
)
from gitdist.spec.search import PrunerSpec, SearchSpec
from gitdist.spec.study import ResourcesSpec, Share, SharingSpec, StoreSpec, StudySpec, TrackingSpec
from gitdist.spec.trial import EvaluationSpec, NormalizationSpec, TrialSpec

__all__ = [
    "DataSpec",
    "Dimension",
    "EvaluationSpec",
    "GeneratorSpec",
    "GroupsSpec",
    "IdentitySpec",
    "MunitSpec",
    "NormalizationSpec",
    "OracleSpec",
    "PluginSpec",
    "PretrainedSpec",
    "ProfileSpec",
    "PrunerSpec",
    "RandAugmentSpec",
    "ResourcesSpec",
    "SearchSpec",
    "Share",
    "SharingSpec",
    "StoreSpec",
    "StreamSpec",
    "StudySpec",
    "TrackingSpec",
    "TrialSpec",
    "unknown_name",
]
