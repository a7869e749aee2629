"""diffscope probe: accuracy of a linear probe over noise levels, beside ICR."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError

Test = Annotated[
    str | None,
    typer.Option("--test", metavar="DATA", help="Labelled images to test on.", show_default="a share of --data"),
]
TestShare = Annotated[float, typer.Option("--test-share", metavar="F", help="Of --data, kept for the test; seeded.")]
Solver = Annotated[str, typer.Option("--solver", help="sklearn, or torch: the same minimum, for large sets.")]
Knn = Annotated[int, typer.Option("--knn", metavar="K", help="Neighbours that vote.")]
LabelNoise = Annotated[
    str | None,
    typer.Option(
        "--label-noise",
        metavar="F,F",
        help="Also train with these shares of labels replaced, such as 0.2,0.4.",
        show_default=False,
    ),
]
Ensemble = Annotated[
    int, typer.Option("--ensemble", metavar="N", help="Also the mean probabilities of N neighbouring levels, N odd.")
]
Posterior = Annotated[bool, typer.Option("--posterior", help="Also probe the denoised images.")]
Rank = Annotated[int, typer.Option("--rank", metavar="R", help="Directions of a class's subspace, for CSNR.")]
NumLevels = Annotated[
    int,
    typer.Option(
        "--num-levels", metavar="K", help="Noise levels, log-spaced over [0.002, 20], cut to the model's range."
    ),
]


@options.with_measuring
def run(
    checkpoint: options.Checkpoint,
    measuring: options.Measuring,
    test: Test = None,
    test_share: TestShare = 0.25,
    solver: Solver = "sklearn",
    knn: Knn = 20,
    label_noise: LabelNoise = None,
    ensemble: Ensemble = 1,
    posterior: Posterior = False,
    rank: Rank = 5,
    num_levels: NumLevels = 12,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIfBest = None,
) -> None:
    """Is the level of lowest ICR the one where classes are told apart best? Accuracy of a linear probe and k-NN.

    Labels are class folders or dataset.json. Probes see the plain image; --augment and --views are ICR's.
    --input both adds probes of clean input. --fail-if looks at each layer's best level.

    nc1 grows and separation falls with the number of training images (train_images): compare them at equal numbers.

    Example: diffscope probe ckpt.pkl --data images/ --out probe/
    """
    from diffscope.cli import gates
    from diffscope.cli.running import others_leave, prepare, print_result, tell_skipped, warnings_of
    from diffscope.measure import progress as listener
    from diffscope.measure import rows as reading
    from diffscope.measure.opening import open_images
    from diffscope.report import terminal
    from diffscope.studies.probe import plan as probe_plan
    from diffscope.studies.probe.probe import run as run_probe

    both = measuring.input == "both"
    measuring = replace(measuring, input="noisy") if both else measuring
    probing = probe_plan.Probing(test_share, solver, knn, shares(label_noise), ensemble, posterior, both, rank)
    known = {*reading.row_keys(), *probe_plan.row_keys(probing)}
    conditions = [gates.parse(text, known) for text in fail_if or []]
    job = measuring.job(checkpoint, num_levels=num_levels)
    planned = probe_plan.plan(job, probing, None if test is None else open_images(job.settings, test))
    for text in warnings_of(job):
        terminal.warn(text)
    prepare(out, planned.protocol(), overwrite)
    with terminal.progress(planned.passes, "probe", unit="passes") as advance:
        result, forget = run_probe(planned, listener.Listener(advance, terminal.note), out)
    others_leave()
    tell_skipped(result)
    if out is not None:
        for path in result.save(out):
            terminal.note(f"wrote {path}")
    print_result(result, json, quiet, pictured=out is not None)
    # Only now: until the result is out, its parts are all there is of the work.
    forget()
    best = {row.layer: row.sigma for row in result.probe}
    gates.check(conditions, [row.to_json() for row in result.rows if row.sigma == best[row.layer]])


def shares(text: str | None) -> tuple[float, ...]:
    """`0.2,0.4` as numbers."""
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--label-noise {text}: expected shares such as 0.2,0.4") from None
