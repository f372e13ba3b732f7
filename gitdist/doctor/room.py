"""Whether a study finds room: what its start would refuse, told before."""

from collections.abc import Sequence

from gitdist.doctor.finding import Finding
from gitdist.errors import GitdistError
from gitdist.generator.kinds import needs_training
from gitdist.spec import StudySpec
from gitdist.study.scheduling.packing import Node, check_fits_alone, find_capacity


def check_room(place: str, nodes: Sequence[Node], spec: StudySpec) -> Finding:
    """Place a study's servers and trials on nodes with nothing on them.

    Args:
        place: ``here`` or ``cluster``.
        nodes: what each of them offers.
        spec: the study.
    """
    num_servers = spec.resources.servers if spec.sharing.stream else 0
    try:
        told = (
            find_capacity(nodes, spec.resources, num_servers).note if spec.search.total else "no trials, so no servers"
        )
        if needs_training(spec.generator):
            check_fits_alone(nodes, spec.resources, "training", "train the generator")
        if spec.search.total and not num_servers and spec.data.nuisance == "none":
            check_fits_alone(nodes, spec.resources, "server", "transform the images that eKLD is measured on")
    except GitdistError as error:
        return Finding.of_error("room", place, error)
    return Finding("room", place, "ok", told)
