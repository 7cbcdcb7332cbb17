# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_training`: train the bundled model, measure it, show it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer

from sd_training import card, evaluation, pipeline, training
from sd_training.captions import prompt
from sd_training.loop import SAVE_SECONDS
from sd_training.shapes import KINDS
from sd_training.team import SHARDS

app = typer.Typer(
    help="Train and measure bundled://shapes.", no_args_is_help=True, pretty_exceptions_enable=False
)

_PLAN = training.Plan()
_SHEETS = ((64, 24), (128, 12), (256, 12))
Folder = Annotated[Path, typer.Argument(help="A pipeline folder.")]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _workers() -> int:
    return min(SHARDS, os.cpu_count() or 1) if _device() == "cpu" else 1


@app.command()
def train(
    *,
    work: Annotated[
        Path, typer.Option(help="Checkpoints and samples.png; a run that was stopped goes on from here.")
    ] = Path(".cache/training"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the pipeline folder goes.")] = Path(
        ".cache/training/model"
    ),
    text_steps: int = _PLAN.text_steps,
    decoder_steps: int = _PLAN.decoder_steps,
    unet_steps: Annotated[
        list[int] | None, typer.Option(help="Of a round; named again: of a further one.")
    ] = None,
    seed: int = _PLAN.seed,
    masks: int = _PLAN.masks,
    captions: int = _PLAN.captions,
    workers: Annotated[
        int, typer.Option(min=0, max=SHARDS, help="Processes; 0: one, or two on a CPU with several cores.")
    ] = 0,
    save_seconds: float = SAVE_SECONDS,
    card_of: Annotated[
        bool, typer.Option("--card/--no-card", help="Measure and write the model card.")
    ] = True,
) -> None:
    """Train from nothing, or from where a stopped run was."""
    plan = training.Plan(
        text_steps, decoder_steps, tuple(unet_steps or _PLAN.unet_steps), seed, masks, captions
    )
    try:
        trained = training.train(plan, work, _device(), workers or _workers(), save_seconds)
    except ValueError as error:
        typer.echo(f"sd_training: {error}", err=True)
        raise typer.Exit(1) from error
    pipeline.save(trained, output)
    if card_of:
        evaluate(output, full=False)
    typer.echo(f"{output}: written")


@app.command()
def evaluate(
    folder: Folder,
    seed: Annotated[int, typer.Option(help="First seed of the pictures.")] = 1_000_000,
    full: Annotated[bool, typer.Option(help="All settings; a quarter of an hour on two cores.")] = True,
    write_card: Annotated[bool, typer.Option("--card/--no-card", help="Write the model card.")] = True,
) -> None:
    """Measure how often the pictures show what the prompts say."""
    model = pipeline.load(folder, _device())
    scores = list(_told(evaluation.evaluate(model, seed=seed, full=full)))
    changed, asked = evaluation.negative(model, seed)
    note = (
        f"A negative prompt that names the colour of a picture changes it in {changed} of {asked} pictures."
    )
    typer.echo(note)
    if write_card:
        card.write(folder, scores, [note])


def _told(scores: Iterable[evaluation.Score]) -> Iterable[evaluation.Score]:
    typer.echo(f"{'setting':72} {'n':>4} {'colour':>7} {'backgr.':>7} {'shape':>7} {'fit':>5} {'edge':>5}")
    for score in scores:
        typer.echo(
            f"{score.name:72} {score.pictures:4} {score.colour:7.3f} {score.background:7.3f} {score.shape:7.3f}"
            f" {score.overlap:5.2f} {score.softness:5.2f}"
        )
        yield score


@app.command()
def grid(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG file.")] = Path("shapes.png"),
    seed: int = 1,
) -> None:
    """One sheet of pictures at 64, 128 and 256 pixels."""
    model = pipeline.load(folder, _device())
    images = []
    for side, count in _SHEETS:
        kinds = [KINDS[(side + index * 47) % len(KINDS)] for index in range(count)]
        how = pipeline.Sampling(width=side, height=side)
        images += pipeline.draw(model, [prompt(kind) for kind in kinds], seed, how)
    pipeline.grid(images, columns=12, cell=96).save(output)
    typer.echo(f"{output}: written")


if __name__ == "__main__":
    app()
