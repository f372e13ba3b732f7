"""A whole study file."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gitdist.address import refuse_secrets
from gitdist.errors import TrialFailedError
from gitdist.spec.base import STORED, Seed, Spec, Text, name_or, unknown_name
from gitdist.spec.data import DataSpec
from gitdist.spec.generator import GeneratorSpec, MunitSpec, StreamSpec
from gitdist.spec.mistakes import find_mistakes
from gitdist.spec.search import METHOD, SearchSpec
from gitdist.spec.trial import EvaluationSpec, TrialSpec, default_milestones

RESERVED_NAMES = ("store", "mlflow.db", "mlartifacts")  # other entries of a results directory
_SMALLEST_SHARE = 0.0001  # of a CPU or GPU: what Ray counts
_LEDGERS = ("sqlite", "journal")
RESERVED_ENDS = (".owners", ".yaml", ".yml")  # of other entries, and of study files, which commands take as well


def check_name(name: str) -> str:
    """Return a study's name; raise ValueError for a text that cannot be one."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name)
    if not plain or name in RESERVED_NAMES or name.lower().endswith(RESERVED_ENDS):
        raise ValueError(
            "a study's name is a folder: up to 64 letters, digits, '.', '_', '-', none of "
            f"{', '.join(RESERVED_NAMES)}, and without {' or '.join(RESERVED_ENDS)} at its end"
        )
    return name


def _has_port_or_none(url: SplitResult) -> bool:
    try:
        return url.port is None or url.port > 0
    except ValueError:
        return False


class Share(Spec):
    """The resources of one process."""

    cpu: float = Field(1.0, ge=_SMALLEST_SHARE, le=10_000)
    """CPUs; torch uses as many threads as whole CPUs, at least one."""
    gpu: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = "auto"
    """GPUs, or a part of one; auto: what keeps the GPUs that are there at the start busy; 0: the CPU."""

    @field_validator("gpu")
    @classmethod
    def _part_or_whole(cls, value: float | str) -> float | str:
        if isinstance(value, float) and (0 < value < _SMALLEST_SHARE or (value > 1 and not value.is_integer())):
            raise ValueError(f"must be a part of one GPU, {_SMALLEST_SHARE} to 1, or a whole number of them")
        return value

    @property
    def num_gpus(self) -> float:
        """``gpu`` as a number: 0 for an ``auto`` that nothing has replaced; see ``gpu_shares``."""
        return 0.0 if self.gpu == "auto" else self.gpu

    @property
    def device(self) -> str | None:
        """The device of such a process: ``cpu`` without a share of a GPU; None = the GPU if one is visible."""
        return None if self.num_gpus else "cpu"


class TrialShare(Share):
    """The resources of a trial's process."""

    dataset_gb: Annotated[float, Field(ge=0, le=1_000_000)] | Literal["auto"] = "auto"
    """GB of training images that a trial puts on its device; of larger sets each batch is gathered when it is needed,
    with the same results. auto: half of its part of a GPU's memory, nothing on a CPU."""

    @property
    def dataset_bytes(self) -> int | None:
        """``dataset_gb`` in bytes; None = auto."""
        return None if self.dataset_gb == "auto" else int(self.dataset_gb * 1e9)


class ResourcesSpec(Spec):
    """The resources of each kind of process. torch threads of a process = its whole CPUs, at least one."""

    servers: int = Field(1, ge=1, le=1000)
    """Generator servers for all trials."""
    server: Share = Share()
    """Resources of a generator server."""
    trial: TrialShare = TrialShare()
    """Resources of a trial."""
    training: Share = Share(cpu=2)  # nothing else runs at that time
    """Resources of the generator's training."""
    max_concurrent: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """Trials at once; auto: as many as fit."""
    autoscaling: bool = False
    """The cluster adds nodes by itself: wait for missing resources in place of refusing. Needs max_concurrent."""

    @field_validator("trial", mode="before")
    @classmethod
    def _of_a_trial(cls, value: Any) -> Any:
        return value.model_dump() if type(value) is Share else value

    @model_validator(mode="after")
    def _bounded(self) -> "ResourcesSpec":
        if self.autoscaling and self.max_concurrent == "auto":
            raise ValueError("autoscaling needs max_concurrent, the number of trials that the cluster may grow for")
        return self


def _check_registered(name: str) -> str:
    if not re.fullmatch(r"[^\s/:.][^/:]{0,199}", name) or not name.isprintable():
        raise ValueError(
            "must be 1 to 200 printable characters without / and :, and not begin with a dot or a blank, but it is "
            f"{name!r}"
        )
    return name


class TrackingSpec(Spec):
    """The MLflow server or database."""

    uri: Text | None = None
    """MLflow's server or database; null: $MLFLOW_TRACKING_URI, else RESULTS/mlflow.db."""
    models: bool = True
    """Log the best trial and the baseline as MLflow models."""
    register_: Annotated[str, AfterValidator(_check_registered)] | None = Field(None, alias="register")
    """Name in MLflow's model registry under which the best trial's model gets a version."""

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        refuse_secrets(
            value or "",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or leave it out and set MLFLOW_TRACKING_URI",
        )
        return value


class SharingSpec(Spec):
    """What trials share. On a CPU the results are the same either way."""

    stream: bool = True
    """One stream of draws for all trials; false: each trial generates its own."""
    prefix: bool = True
    """Train the epochs before switch_epoch once for all trials that agree on them; false: each trial from scratch."""


class StoreSpec(Spec):
    """The store of artifacts (data sets, generators, blocks, training prefixes)."""

    uri: Text | None = None
    """A second store that several results directories share: a path, or a URI such as s3://bucket/gitdist."""
    max_gb: Annotated[float, Field(gt=0, le=1_000_000_000)] | None = None
    """Largest size of RESULTS/store in GB, above which the least recently used artifact is removed; null: no limit."""

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        refuse_secrets(value or "", "provide them by each node's role or environment (AWS_ACCESS_KEY_ID)")
        return value


class StudySpec(Spec):
    """A whole study file."""

    name: Annotated[str, AfterValidator(check_name)]
    """Name of the study, which is its directory in the results: letters, digits, '.', '_' and '-'."""
    title: str | None = None
    """Title of the report."""
    seed: Seed = 0
    """Seed of stream, trial, search and evaluation unless they have their own. The generator has its own."""
    data: DataSpec = DataSpec()
    """The data set, its long tail and its splits."""
    generator: GeneratorSpec = MunitSpec()
    """What makes the augmentations; `kind` chooses it."""
    stream: StreamSpec = StreamSpec()
    """The stream of draws that all trials read."""
    trial: TrialSpec = TrialSpec()
    """One training of the classifier: what is not searched, and the baseline's setting."""
    methods: Annotated[dict[str, dict[str, Any]], Field(max_length=1000)] = {}
    """Named changes of trial that are compared; a dimension of the search."""
    baseline: bool = True
    """Train trial without augmentation too."""
    search: SearchSpec = SearchSpec()
    """What is searched, how and for which objective."""
    ledger: Annotated[str, name_or(_LEDGERS, "^postgresql([+]psycopg)?://")] = "sqlite"
    """Storage of the search: sqlite (one host), journal (a file on a shared disk), or
    postgresql://[user@]host[:port]/database."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How trials are measured."""
    sharing: SharingSpec = SharingSpec()
    """What trials share."""
    store: StoreSpec = StoreSpec()
    """The store of data sets, generators, draws and shared epochs."""
    resources: ResourcesSpec = ResourcesSpec()
    """CPUs and GPUs of each process."""
    tracking: TrackingSpec = TrackingSpec()
    """MLflow."""

    @field_validator("ledger")
    @classmethod
    def _known_ledger(cls, value: str) -> str:
        if value in _LEDGERS:
            return value
        refuse_secrets(value, "put the password into PGPASSWORD or ~/.pgpass")
        url = urlsplit(value)
        known = url.scheme in ("postgresql", "postgresql+psycopg") and _has_port_or_none(url)
        if not known or not url.hostname or not url.path.strip("/"):
            raise ValueError(
                f"the ledger must be sqlite, journal or postgresql://[user@]host[:port]/database, but it is '{value}'"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _spread_seed(cls, values: Any) -> Any:
        """Give the study's seed to every part without its own."""
        if not isinstance(values, dict) or not values.get("seed") or not isinstance(values["seed"], int | float):
            return values
        spread = dict(values)
        for part in ("stream", "trial", "search", "evaluation"):
            inner = spread.get(part) or {}
            if isinstance(inner, dict):
                spread[part] = {"seed": values["seed"], **inner}
        return spread

    @model_validator(mode="before")
    @classmethod
    def _search_methods(cls, values: Any) -> Any:
        """Make the methods the first dimension of the search, unless the file has that dimension."""
        if not isinstance(values, dict) or not isinstance(values.get("methods"), dict) or not values["methods"]:
            return values
        search = values.get("search") or {}
        space = (search.get("space") or {}) if isinstance(search, dict) else None
        if not isinstance(space, dict) or METHOD in space:
            return values
        return {**values, "search": {**search, "space": {METHOD: {"choice": list(values["methods"])}, **space}}}

    @model_validator(mode="after")
    def _parts_agree(self, info: ValidationInfo) -> "StudySpec":
        if self.generator.kind == "oracle" and self.data.nuisance == "none":
            raise ValueError(
                "generator.kind 'oracle' needs a known nuisance, but data.nuisance is 'none'; "
                "name the nuisance there, or choose another generator"
            )
        if self.tracking.register_ is not None and (not self.tracking.models or len(self.search.objectives) > 1):
            raise ValueError(
                "tracking.register needs tracking.models and a single search.objective, which has a best trial; "
                "remove tracking.register"
            )
        self._check_true_nuisance("", self.trial)
        if not self.search.total and self.baseline:
            raise ValueError("search.total 0 means no trials, so it requires baseline: false")
        if self.replicate_seeds and self.replicate_seeds[-1] >= 2**63:
            raise ValueError(
                f"search.replicates needs seeds from trial.seed up, but that is {self.trial.seed}; lower it"
            )
        self._check_methods(info.context)
        for name, dimension in self.search.space.items():
            for value in dimension.probes:
                self._check_searched(f"search.space.{name}", {name: value}, info.context)
        for index, point in enumerate(self.search.try_first):
            self._check_searched(f"search.try_first.{index}", point, info.context)
        self._check_pruner()
        return self

    @model_validator(mode="after")
    def _milestones_rise(self, info: ValidationInfo) -> "StudySpec":
        if info.context == STORED:
            return self
        named = [name for name, fields in self.methods.items() if "lr_milestones" in fields]
        trials = {"trial": self.trial, **{f"methods.{name}": self.trial_of({METHOD: name}) for name in named}}
        for path, trial in trials.items():
            given, default = trial.lr_milestones, default_milestones(trial.epochs)  # of 1 or 3 epochs: twice the same
            if given != default and any(before >= after for before, after in pairwise(given)):
                raise ValueError(f"{path}.lr_milestones must rise, but they are {list(given)}; sort them, each once")
        return self

    @property
    def ekld_under(self) -> str:
        """The T of eKLD and consistency: the true ``nuisance``, or without one the generator, by its kind."""
        return self.generator.kind if self.data.nuisance == "none" else "nuisance"

    @property
    def num_servers(self) -> int:
        """Generator servers for all trials; 0 if each trial draws for itself."""
        return self.resources.servers if self.sharing.stream else 0

    @property
    def num_trials(self) -> int:
        """Trials that are trained in all, with the baseline."""
        return self.search.total * self.search.replicates + (self.baseline if self.search.total else 0)

    @property
    def replicate_seeds(self) -> tuple[int, ...]:
        """The seeds of the trials of each point; empty = a point is one trial."""
        replicates = self.search.replicates
        return tuple(self.trial.seed + index for index in range(replicates)) if replicates > 1 else ()

    def changes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of `trial` that searched parameters set: those of the method, then all others."""
        fields = dict(params)
        method = fields.pop(METHOD, None)
        return {**(self.methods[method] if method is not None else {}), **fields}

    def trial_of(self, params: Mapping[str, Any], context: str | None = STORED) -> TrialSpec:
        """Return the trial that searched parameters make of `trial`; default milestones follow its number of epochs.

        Args:
            params: the searched parameters, by field.
            context: ``STORED``, or None for parameters of a study file.

        Raises:
            TrialFailedError: a value breaks its rule, or the combination a rule that no single value breaks.
        """
        values = self.trial.model_dump()
        if self.trial.lr_milestones == default_milestones(self.trial.epochs):
            del values["lr_milestones"]
        values |= self.changes(params)
        try:
            return TrialSpec.model_validate(values, context=context)
        except ValidationError as error:
            mistake = find_mistakes(error, values)[0]
            where = f"trial.{mistake.field}" if mistake.field else "trial:"
            shown = ", ".join(f"{name} {value!r}" for name, value in params.items())
            raise TrialFailedError(f"{where} {mistake.rule}, but the trial has {shown}") from None

    def _check_methods(self, context: str | None) -> None:
        dimension = self.search.space.get(METHOD)
        for name in dimension.extremes if dimension else ():
            if name not in self.methods:
                raise ValueError(f"search.space.{METHOD}: " + unknown_name("method", str(name), list(self.methods)))
        for name, fields in self.methods.items():
            if "seed" in fields and self.search.replicates > 1:
                raise ValueError(
                    f"search.replicates sets the seeds of all trials, but methods.{name} sets one; remove one of them"
                )
            for field in fields:
                if field not in TrialSpec.model_fields:
                    raise ValueError(
                        f"methods.{name}: " + unknown_name("trial field", field, list(TrialSpec.model_fields))
                    )
            self._check_searched(f"methods.{name}", fields, context)

    def _check_searched(self, path: str, values: Mapping[str, Any], context: str | None) -> None:
        try:
            trial = self.trial_of(values, context)
        except TrialFailedError as error:
            raise ValueError(f"{path}: {error}") from None
        self._check_true_nuisance(f"{path}: ", trial)

    def _check_true_nuisance(self, path: str, trial: TrialSpec) -> None:
        if trial.true_nuisance and self.data.nuisance == "none":
            raise ValueError(
                f"{path}trial.true_nuisance true needs a known nuisance, but data.nuisance is 'none'; "
                "name the nuisance there, or set true_nuisance to false"
            )

    def _check_pruner(self) -> None:
        pruner, trial = self.search.pruner, self.trial
        if pruner.kind == "none":
            return
        searched = [*self.search.space, *(field for fields in self.methods.values() for field in fields)]
        varied = [name for name in ("epochs", "switch_epoch") if name in searched]
        if varied:
            raise ValueError(
                f"search.pruner compares trials at the same epoch, but {varied[0]} is searched; "
                "remove it from the space and the methods, or set search.pruner.kind to none"
            )
        judged = trial.epochs - trial.switch_epoch
        if pruner.min_epochs >= judged:
            raise ValueError(
                f"search.pruner.min_epochs must be below the {judged} epochs after trial.switch_epoch, "
                f"but it is {pruner.min_epochs}"
            )
