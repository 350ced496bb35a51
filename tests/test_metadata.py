import io
import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import made, picture, plan, record_of, source
from sd_parsers import ParserManager
from sd_parsers.data import Generators, PromptInfo

from hotfolder.encoding import CHUNK, PNG_ENCODING, Encoding, Format, encode
from hotfolder.metadata import digital_source_type, own_record, parameters_text, xmp_packet
from hotfolder.plan import Plan
from hotfolder.presets import Model
from hotfolder.record import Record

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def untouched(**other: Any) -> Record:
    """The record of a picture that no generating model touched."""
    none = {"generate": None, "model": {}, "preset": None, "kind": None, "prompt": None, **other}
    return record_of(plan(sources=[source("image")])).model_copy(update=none)


def parameters(record: Record) -> str:
    """The text of a picture that a model made."""
    text = parameters_text(record)
    assert text is not None
    return text


def text_in_png(record: Record) -> dict[str, str]:
    with Image.open(io.BytesIO(encode(picture(), record).data)) as image:
        image.load()
        return {str(key): value for key, value in image.info.items() if isinstance(value, str)}


def read_by_sd_parsers(record: Record, how: Encoding = PNG_ENCODING) -> PromptInfo:
    with Image.open(io.BytesIO(encode(picture(), record, how).data)) as image:
        found = ParserManager().parse(image)
    assert found is not None
    return found


def xmp_fields(record: Record) -> dict[str, str]:
    root = ET.fromstring(xmp_packet(record))
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return {field.tag: field.text or "" for field in description}


def test_the_parameters_are_written_as_a1111_does() -> None:
    assert parameters(record_of(plan(prompt="a mug,\non a table"))) == (
        "a mug,\non a table\n"
        "Negative prompt: \n"
        "Steps: 28, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 44, "
        "Size: 48x32, Model hash: ababababab, Model: FLUX.1-dev, Version: hotfolder 0.1.0, "
        'Hashes: {"model": "ababababab"}'
    )


def test_a_second_pass_and_a_strength_are_said() -> None:
    text = parameters(record_of(plan(true_cfg=4.0, negative_prompt="blurry", strength=0.55, sources=[source()])))

    assert "\nNegative prompt: blurry\nSteps: " in text
    assert ", CFG scale: 4, Distilled CFG Scale: 3.5, " in text
    assert ", Denoising strength: 0.55, " in text


def test_what_is_not_known_is_left_out() -> None:
    details = parameters(record_of(plan(guidance=None), result=made({}))).splitlines()[-1]

    assert details == "Steps: 28, CFG scale: 1, Seed: 44, Size: 48x32, Model: FLUX.1-dev, Version: hotfolder 0.1.0"


def test_a_scheduler_without_a_name_in_a1111_goes_by_its_own() -> None:
    details = parameters(record_of(result=made({"scheduler": "FlowMatchHeunDiscreteScheduler"})))

    assert "Sampler: FlowMatchHeunDiscreteScheduler, CFG scale: 1" in details


def test_a_model_in_a_folder_gives_its_name_away_but_not_where_it_lies() -> None:
    record = record_of(plan(model=Model(repo='/home/ann/models/my "best", v1: {x}')))

    assert ", Model: my best v1 x, " in parameters(record)
    assert "/home/ann" not in parameters(record) + xmp_packet(record)


@pytest.mark.parametrize(
    "mark", ["Negative prompt: none", "Steps: 4, Sampler: DDIM, Seed: 1", "a\nNegative prompt: x\n Steps: 1"]
)
def test_a_prompt_cannot_pass_for_what_follows_it(mark: str) -> None:
    found = read_by_sd_parsers(record_of(plan(prompt=mark)))

    (sampler,) = found.samplers
    assert sampler.parameters["seed" if "seed" in sampler.parameters else "Seed"] == "44"
    assert not sampler.negative_prompts
    lines = parameters(record_of(plan(prompt=mark))).splitlines()
    assert [line.startswith("Negative prompt:") for line in lines].count(True) == 1
    assert [line.lstrip().startswith("Steps:") for line in lines].count(True) == 1


# sd-parsers knows no AVIF.
@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_sd_parsers_reads_what_was_asked(form: Format) -> None:
    found = read_by_sd_parsers(
        record_of(plan(prompt="ein Becher, weiß 🫖", negative_prompt="blurry, low", true_cfg=3.0)),
        Encoding(format=form),
    )

    (sampler,) = found.samplers
    assert found.generator is Generators.AUTOMATIC1111
    assert [prompt.value for prompt in sampler.prompts] == ["ein Becher, weiß 🫖"]
    assert [prompt.value for prompt in sampler.negative_prompts] == ["blurry, low"]
    assert sampler.name == "Euler"
    assert sampler.model is not None
    assert (sampler.model.name, sampler.model.hash) == ("FLUX.1-dev", "ababababab")
    said = {str(key).lower().replace(" ", "_"): value for key, value in sampler.parameters.items()}
    assert (said["steps"], said["seed"], said["cfg_scale"]) == ("28", "44", "3")
    assert found.metadata["Size"] == "48x32"
    assert found.metadata["Distilled CFG Scale"] == "3.5"
    assert found.metadata["Hashes"] == {"model": "ababababab"}


@given(prompt=st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\r\t"), max_size=80))
@settings(deadline=None, max_examples=60)
def test_sd_parsers_finds_the_seed_whatever_the_prompt_says(prompt: str) -> None:
    found = read_by_sd_parsers(record_of(plan(prompt=prompt)))

    assert "44" in next(iter(found.samplers)).parameters.values()


def test_pillow_reads_the_three_texts_from_the_png() -> None:
    record = record_of(plan(prompt="weiß"))
    texts = text_in_png(record)

    assert texts["parameters"] == parameters(record)
    assert Record.model_validate_json(texts[CHUNK]) == record
    assert json.loads(texts[CHUNK])["type"] == "picture"
    with Image.open(io.BytesIO(encode(picture(), record).data)) as image:
        image.load()
        assert image.info["XML:com.adobe.xmp"] == xmp_packet(record)


@pytest.mark.parametrize(
    ("job", "kind_of_source"),
    [
        (plan(), "trainedAlgorithmicMedia"),
        (plan(sources=[source("image")]), "compositeWithTrainedAlgorithmicMedia"),
        (plan(sources=[source("image"), source("mask")]), "compositeWithTrainedAlgorithmicMedia"),
        (plan(sources=[source("control")]), "trainedAlgorithmicMedia"),
    ],
    ids=["prompt", "picture", "picture and mask", "control map"],
)
def test_xmp_marks_the_picture_as_made_by_a_model(job: Plan, kind_of_source: str) -> None:
    assert xmp_fields(record_of(job))[f"{IPTC}DigitalSourceType"] == SOURCE_TYPES + kind_of_source


def test_xmp_names_program_model_and_prompt() -> None:
    fields = xmp_fields(record_of(plan(prompt="<b>a & b</b>", negative_prompt="c", true_cfg=2.0)))

    assert fields[f"{IPTC}AISystemUsed"] == "FLUX.1-dev"
    assert fields[f"{IPTC}AISystemVersionUsed"] == "main"
    assert fields[f"{IPTC}AIPromptInformation"] == "<b>a & b</b>\nNegative prompt: c"
    assert fields["{http://ns.adobe.com/xap/1.0/}CreatorTool"] == "hotfolder 0.1.0"
    assert fields["{http://ns.adobe.com/xap/1.0/}CreateDate"] == "2026-11-20T12:00:00.123Z"


@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(deadline=None, max_examples=60)
def test_xmp_is_xml_whatever_the_prompt_says(prompt: str) -> None:
    assert xmp_fields(record_of(plan(prompt=prompt)))[f"{IPTC}DigitalSourceType"].startswith(SOURCE_TYPES)


@pytest.mark.parametrize("prompt", [None, ""])
def test_a_picture_that_no_model_touched_says_only_what_wrote_it(prompt: str | None) -> None:
    record = untouched(prompt=prompt)

    assert parameters_text(record) is None
    assert digital_source_type(record) is None
    assert {tag.rpartition("}")[2] for tag in xmp_fields(record)} == {"CreatorTool", "CreateDate"}


def test_a_size_that_nobody_asked_for_is_left_out() -> None:
    record = record_of()
    assert record.generate is not None
    unsized = record.model_copy(update={"generate": record.generate.model_copy(update={"width": None, "height": None})})
    assert ", Seed: 44, Model hash: " in parameters(unsized)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(deadline=None, max_examples=60)
def test_our_own_record_comes_back_from_xmp_whatever_it_says(text: str) -> None:
    own = json.dumps({"prompt": text}, ensure_ascii=False)

    found = own_record(xmp_packet(record_of(), own=own))

    assert found is not None
    assert json.loads(found) == {"prompt": text}


def test_our_own_record_is_found_where_another_program_made_it_an_attribute() -> None:
    packet = xmp_packet(record_of(), own='{"a": 1}').replace('<hotfolder:Record>{"a": 1}</hotfolder:Record>', "")
    moved = packet.replace('rdf:about=""', 'rdf:about="" hotfolder:Record="{&quot;a&quot;: 1}"')

    assert own_record(moved) == '{"a": 1}'


ENTITY = (
    '<!DOCTYPE a [<!ENTITY b "{}">]>'
    '<a xmlns:hotfolder="http://ns.hotfolder.invalid/1.0/"><hotfolder:Record>&b;</hotfolder:Record></a>'
)


@pytest.mark.parametrize("packet", ["", "no XML", xmp_packet(record_of()), ENTITY, "<a>"])
def test_what_is_no_packet_of_ours_holds_no_record(packet: str) -> None:
    assert own_record(packet) is None
