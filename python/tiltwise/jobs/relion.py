"""What RELION's pipeliner, and CCP-EM's, read and write in a job folder: markers and output nodes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tiltwise.files import write_text
from tiltwise.io.star import StarBlock, StarDocument, format_star

SUCCESS = "RELION_JOB_EXIT_SUCCESS"
FAILURE = "RELION_JOB_EXIT_FAILURE"
ABORTED = "RELION_JOB_EXIT_ABORTED"
ABORT_NOW = "RELION_JOB_ABORT_NOW"
ABORT_FILES = (ABORT_NOW, "PIPELINER_JOB_ABORT_NOW")
"""Their appearance asks the job to stop."""
ALSO_FOR_CCPEM = {
    SUCCESS: "PIPELINER_JOB_EXIT_SUCCESS",
    FAILURE: "PIPELINER_JOB_EXIT_FAILED",
    ABORTED: "PIPELINER_JOB_EXIT_ABORTED",
}
"""The same markers by the names of CCP-EM's pipeliner."""
OUTPUT_NODES = "RELION_OUTPUT_NODES.star"

# RELION 3.1 knows nodes by number; the first matching start of the label of later versions decides.
_NODE_NUMBERS = (
    ("ParticleGroupMetadata", 3),
    ("TomoOptimisationSet", 3),
    ("TomogramGroupMetadata", 1),
    ("DensityMap.mrc.relion.halfmap", 10),
    ("DensityMap", 6),
    ("Mask3D", 7),
    ("LogFile", 13),
    ("ProcessData.star.relion.postprocess", 14),
    ("ProcessData", 8),
)


def clear_markers(folder: Path) -> None:
    """Remove what an earlier run left; a stale marker would be taken for the end of this one."""
    for name in (*ALSO_FOR_CCPEM, *ALSO_FOR_CCPEM.values(), *ABORT_FILES):
        with suppress(FileNotFoundError):
            (folder / name).unlink()


def write_marker(folder: Path, name: str) -> None:
    """Make the empty files that tell RELION and CCP-EM's pipeliner how the job ended: one of RELION's names."""
    (folder / name).touch()
    (folder / ALSO_FOR_CCPEM[name]).touch()


def node_number(label: str) -> int:
    """Number of RELION 3.1 for a node label of RELION 4 and 5; 0 for an unknown one."""
    return next((number for start, number in _NODE_NUMBERS if label.startswith(start)), 0)


def write_output_nodes(folder: Path, nodes: Iterable[tuple[str, str]]) -> None:
    """Write `RELION_OUTPUT_NODES.star` from pairs of path and label, with the columns of RELION 3.1 and of 4, 5."""
    paths, labels = zip(*nodes, strict=True)
    block = StarBlock(name="output_nodes", kind="loop", columns={})
    block.set_text("rlnPipeLineNodeName", list(paths))
    block.set_text("rlnPipeLineNodeTypeLabel", list(labels))
    block.set_integers("rlnPipeLineNodeType", [node_number(label) for label in labels])
    write_text(folder / OUTPUT_NODES, format_star(StarDocument([block])))
