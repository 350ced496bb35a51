"""A course of training, stopped and gone on with, on a model of three numbers; and what the tiny models are told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import flow
import pytest
import torch
from course import Course
from diffusers import FluxPipeline
from models import (
    MAX_TOKENS,
    PACKED,
    SEEN_PARTS,
    TEXT_DIM,
    make_scheduler,
    make_texts,
    make_transformer,
    words,
)
from muon import orthogonal
from scenes import Ground, Scene, Thing
from seeing import Namer, names_of


class Stopped(Exception):
    """Somebody pulled the plug."""


def line(folder: Path, steps: int = 200, muon: float | None = None) -> tuple[Course, torch.nn.Linear]:
    torch.manual_seed(1)
    model = torch.nn.Linear(2, 1)
    return Course(folder, {"line": model}, steps=steps, rate=0.05, muon=muon, ema=0.9, seed=7), model


def loss_of(model: torch.nn.Linear, step: int) -> torch.Tensor:
    """How far the model is from 2 x - y + 3."""
    points = torch.rand(8, 2, generator=torch.Generator().manual_seed(step))
    wanted = points @ torch.tensor([[2.0], [-1.0]]) + 3
    return torch.nn.functional.mse_loss(model(points), wanted)


OPTIMIZERS = pytest.mark.parametrize("muon", [None, 0.05], ids=["adamw", "muon"])


@OPTIMIZERS
def test_a_course_learns_and_draws_its_curve(tmp_path: Path, muon: float | None) -> None:
    course, model = line(tmp_path, 1000, muon)
    course.run(lambda step: loss_of(model, step))
    curve = [json.loads(one) for one in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == list(range(50, 1001, 50))
    assert curve[-1]["loss"] < curve[0]["loss"] / 100
    averaged = course.averaged["line"].get_parameter("weight")
    assert torch.allclose(averaged, torch.tensor([[2.0, -1.0]]), atol=0.05)


@OPTIMIZERS
def test_a_course_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, muon: float | None) -> None:
    whole, model = line(tmp_path / "whole", muon=muon)
    whole.run(lambda step: loss_of(model, step))

    first, first_model = line(tmp_path / "stopped", muon=muon)

    def until_120(step: int) -> torch.Tensor:
        if step == 120:
            first.keep()
        if step == 160:
            raise Stopped
        return loss_of(first_model, step)

    with pytest.raises(Stopped):
        first.run(until_120)
    second, second_model = line(tmp_path / "stopped", muon=muon)
    assert (second.step, second.seed) == (120, 7)
    # Until the end the weights that are saved are those of before, and so is what is told of them.
    assert not (tmp_path / "stopped/course.json").exists()
    second.run(lambda step: loss_of(second_model, step))
    curve = (tmp_path / "stopped/curve.jsonl").read_text().splitlines()
    assert [json.loads(point)["step"] for point in curve] == [50, 100, 150, 200]
    assert json.loads((tmp_path / "stopped/course.json").read_text())["step"] == 200
    assert torch.equal(second_model.weight, model.weight)
    assert torch.equal(second.averaged["line"].get_parameter("weight"), whole.averaged["line"].get_parameter("weight"))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 16), (2, 16, 4)])
def test_a_step_of_muon_goes_as_far_in_every_direction(shape: tuple[int, int, int]) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonal(given)
    sizes = torch.linalg.svdvals(found)
    assert ((sizes > 0.6) & (sizes < 1.25)).all()
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_words_are_tokens_also_with_a_capital_and_one_unheard_of_is_one() -> None:
    texts = make_texts()
    ids = texts["tokenizer_2"]("A red circle, castle on blue.").input_ids
    told = texts["tokenizer_2"].convert_ids_to_tokens(ids)
    assert told == ["\u2581A", "\u2581red", "\u2581circle", ",", "<unk>", "\u2581on", "\u2581blue", ".", "</s>"]


def test_to_clip_a_word_is_one_token_and_one_unheard_of_some_that_are_known() -> None:
    tokenizer = make_texts()["tokenizer"]
    pieces = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)[1:-1] for text in (*words(), "A unicorn")]
    assert pieces[:-1] == [[f"{word}</w>"] for word in words()]
    assert pieces[-1][0] == "a</w>"
    assert "<|endoftext|>" not in pieces[-1]


def test_each_time_a_word_has_the_same_number() -> None:
    one, other = make_texts(), make_texts()
    for name in ("tokenizer", "tokenizer_2"):
        assert one[name].get_vocab() == other[name].get_vocab()


@pytest.mark.parametrize("text", ["a red circle, on blue.", "", "a unicorn"])
def test_what_is_told_in_training_is_what_the_pipeline_tells(text: str) -> None:
    texts = make_texts()
    pipeline = FluxPipeline(**texts, transformer=None, vae=None, scheduler=make_scheduler())
    with torch.no_grad():
        tokens, pooled, _ = pipeline.encode_prompt(text, None, max_sequence_length=MAX_TOKENS)
        beside = [text, "a longer text that it is beside in training", None]
        told = flow.Words(texts).told(beside, pooled=[True, False, True])
    assert torch.allclose(told.tokens[:1], tokens, atol=1e-6)
    assert torch.allclose(told.pooled[:1], pooled, atol=1e-6)
    assert told.tokens[1].any()
    assert not told.tokens[2].any()
    assert not told.pooled[1:].any()


def test_a_part_of_a_picture_is_named_by_the_thing_in_it_and_tokens_that_name_another_are_further_off() -> None:
    square = Thing(name="square", colour="red", at=(0.5, 0.5), radius=0.29)
    shown = Scene(things=(square,), ground=Ground(kind="gradient", colours=("blue", "green")))
    ((*parts, above, below),) = names_of([shown]).tolist()
    inner = {5, 6, 9, 10}
    assert above != below
    assert {part for part, name in enumerate(parts) if name == parts[5]} == inner
    assert {name for part, name in enumerate(parts) if part not in inner} == {0}

    torch.manual_seed(1)
    namer, names = Namer(), names_of([shown])
    tokens = torch.zeros(1, SEEN_PARTS**2, TEXT_DIM, requires_grad=True)
    optimizer = torch.optim.Adam([tokens, *namer.parameters()], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = namer.loss(tokens, names)
        loss.backward()  # type: ignore[no-untyped-call]  # torch says so itself
        optimizer.step()
    star = replace(shown, things=(replace(square, name="star"),))
    with torch.no_grad():
        assert namer.loss(tokens, names) < 0.1
        assert namer.loss(tokens, names_of([star])) > 1


@pytest.mark.parametrize("kind", ["text2img", "kontext", "control", "redux"])
def test_a_loss_is_computed_where_the_model_is(kind: str) -> None:
    """On a device that computes nothing, but refuses what is not on it, as a GPU does."""
    texts = {name: part.to("meta") if name.startswith("text") else part for name, part in make_texts().items()}
    told = flow.Words(texts).told(["a red circle", None])
    here = torch.zeros(2, 16, PACKED)
    transformer = make_transformer("text2img" if kind == "redux" else kind).to("meta")
    taught = flow.Teacher(transformer=transformer, told=flow.Words(texts).told(["a red circle", None] * 2), scale=2.0)
    loss = flow.loss(
        transformer,
        here,
        told,
        torch.Generator().manual_seed(1),
        beside=here if kind == "control" else None,
        reference=here if kind == "kontext" else None,
        teacher=taught if kind == "redux" else None,
    )
    assert loss.device.type == "meta"
    assert loss.shape == ()


def test_who_says_what_the_teacher_says_is_not_off() -> None:
    torch.manual_seed(1)
    words, transformer = flow.Words(make_texts()), make_transformer("text2img")
    told, known = words.told(["a red circle"]), words.told(["a red circle", ""])
    off = [
        flow.loss(
            transformer,
            torch.ones(1, 16, PACKED),
            told,
            torch.Generator().manual_seed(1),
            teacher=flow.Teacher(transformer=transformer, told=known, scale=scale),
        ).item()
        for scale in (1.0, 2.0)
    ]
    assert off[0] < 1e-9
    assert off[1] > 1e-6


def test_what_is_begun_shows_nothing_but_the_noise_that_was_given() -> None:
    seen: dict[str, torch.Tensor] = {}

    def transformer(**given: Any) -> tuple[torch.Tensor]:
        seen.update(hidden=given["hidden_states"], t=given["timestep"])
        return (given["hidden_states"],)

    noise = torch.randn(4, 16, PACKED, generator=torch.Generator().manual_seed(2))
    told = flow.Told(tokens=torch.zeros(4, 1, 8), pooled=torch.zeros(4, 8))
    latents, chance = torch.ones(4, 16, PACKED), torch.Generator().manual_seed(1)
    flow.loss(transformer, latents, told, chance, noise=noise, begun=0.5)
    assert torch.equal(seen["hidden"][:2], noise[:2])
    assert seen["t"][:2].tolist() == [1.0, 1.0]
    t = seen["t"][2:, None, None]
    assert (t < 1).all()
    assert torch.allclose(seen["hidden"][2:], (1 - t) + t * noise[2:])
