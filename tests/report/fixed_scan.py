"""Records of scans with fixed numbers: as it is, looked at, and reconstructed."""

from dataclasses import replace

from amsc.records import ReconstructionRecord, RefittedLayer, ScanPoint, ScanRecord

__all__ = ["DENSE", "HALF", "LESS", "RECORD", "REPAIRED", "SEEN"]

DENSE = ScanPoint(1.0, 1000, 500, 3, 40, 0.0, (), {})
HALF = ScanPoint(0.5, 480, 260, 2, 21, 0.5, ("layer<1>",), {"conv": (0, 1)})
LESS = ScanPoint(0.3, 300, 130, 1, 9, 2.0, ("layer<1>",), {"conv": (0, 1, 2)})
RECORD = ScanRecord(
    "net <x>", "digits", "both", "macs", 1.0, 0.5, 64, True, "accuracy", (DENSE, HALF, LESS), {"torch": "2"}, {},
    {"path": 1.5},
)  # fmt: skip
SEEN = replace(
    RECORD,
    points=tuple(
        replace(point, score=0.5, score_reestimated=0.75, latency_seconds=2e-3, latency_spread_seconds=1e-4)
        for point in RECORD.points
    ),
)

REPAIRED = replace(
    SEEN,
    points=(
        replace(SEEN.points[0], seen_increase=0.0, seen_increase_reconstructed=0.0, score_reconstructed=0.5),
        *(
            replace(
                point,
                seen_increase=2.0 + i,
                seen_increase_reconstructed=0.25 + i,
                score_reconstructed=0.625,
                repaired=ReconstructionRecord("stream", 96, 0, (RefittedLayer("fc", "own", 0.5, 0.25, 0.1),), 1.5),
            )
            for i, point in enumerate(SEEN.points[1:])
        ),
    ),
)
