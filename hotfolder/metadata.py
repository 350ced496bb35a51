"""What a picture says about itself, in the words that other programs read: A1111's text and XMP.

The same words go into every format: PNG has text chunks for them, the others EXIF and XMP.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html import escape
from pathlib import PurePosixPath
from typing import Final

from hotfolder.clock import Moment
from hotfolder.plan import Generation
from hotfolder.record import Record

#: https://cv.iptc.org/newscodes/digitalsourcetype/
_SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"

#: Of our own field in an XMP packet: a name that is nobody's address (RFC 2606).
_NAMESPACE: Final = "http://ns.hotfolder.invalid/1.0/"

#: What A1111 and its kin call the schedulers of diffusers: sampler and schedule.
_SAMPLERS: Final = {"FlowMatchEulerDiscreteScheduler": ("Euler", "Simple")}

#: A1111 shows, and matches models by, the first ten digits of the weight file's sha256.
_SHORT_HASH: Final = 10

#: Characters that XML 1.0 cannot hold, not even escaped.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parameters_text(record: Record) -> str | None:
    """Return the `parameters` text that A1111, Forge, ComfyUI and Civitai read: both prompts, and one line of details.

    None where no generating model touched the picture.
    Source: `infotext_utils.py` and `processing.py` of stable-diffusion-webui.
    """
    told = generation(record)
    if told is None:
        return None
    lines = [_prompt(record.prompt or "")]
    # Always, even empty: without this line ComfyUI reads nothing.
    lines.append(f"Negative prompt: {_prompt(told.negative_prompt or '')}")
    lines.append(", ".join(f"{key}: {value}" for key, value in _details(record, told)))
    return "\n".join(lines)


def xmp_packet(record: Record, *, prompt: bool = True, own: str | None = None) -> str:
    """Return the XMP packet: made by a model, by which, from which prompt; else only with what program, and when.

    Args:
        prompt: whether the prompt is told too.
        own: our own record as JSON, for a format that has no other place for it; see `own_record`.
    Source: IPTC Photo Metadata Standard 2025.1; the EU AI Act, article 50, asks for such a mark.
    """
    told = generation(record)
    fields = {
        "xmp:CreatorTool": _program(record),
        "xmp:CreateDate": str(Moment.of(record.created_at)),
    }
    if told is not None:
        fields |= {
            "Iptc4xmpExt:DigitalSourceType": digital_source_type(record) or "",
            "Iptc4xmpExt:AISystemUsed": model_name(record) or "",
            "Iptc4xmpExt:AISystemVersionUsed": record.model.get("commit") or record.model.get("revision") or "",
            "Iptc4xmpExt:AIPromptInformation": _whole_prompt(record, told) if prompt else "",
        }
    if own is not None:
        # Beyond ASCII, JSON has characters only inside of strings, where it knows this way to write them as well.
        fields["hotfolder:Record"] = _NO_XML.sub(lambda found: f"\\u{ord(found.group()):04x}", own)
    body = "\n".join(f"   <{name}>{_xml(value)}</{name}>" for name, value in fields.items() if value)
    # The processing instructions and the id are fixed by the XMP specification, part 1, section 7.3.2.
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about=""\n'
        '    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
        '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
        f'    xmlns:hotfolder="{_NAMESPACE}">\n'
        f"{body}\n"
        "  </rdf:Description>\n"
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    )


def own_record(packet: str) -> str | None:
    """Return the JSON that `xmp_packet` was given as `own`, also where another program wrote the packet anew."""
    # Without a document type there are no entities that could grow.
    if "<!DOCTYPE" in packet:
        return None
    try:
        root = ET.fromstring(packet.strip("\0\ufeff \t\r\n"))  # noqa: S314 - see above
    except ET.ParseError:
        return None
    name = f"{{{_NAMESPACE}}}Record"
    for element in root.iter():
        # A field may stand as an element or as an attribute of what it describes.
        found = element.text if element.tag == name else element.get(name)
        if found:
            return found
    return None


def digital_source_type(record: Record) -> str | None:
    """Return how the picture came to be, in IPTC's words: from a model alone, or with another picture worked in.

    A mask or a control map tells a model where and what; none of its own pixels are seen. None where no generating
    model touched the picture.
    """
    if generation(record) is None:
        return None
    composite = any(source.role == "image" for source in record.sources)
    return _SOURCE_TYPES + ("compositeWithTrainedAlgorithmicMedia" if composite else "trainedAlgorithmicMedia")


def generation(record: Record) -> Generation | None:
    """Return what the generating model was told; None where none touched the picture."""
    return record.generate


def model_name(record: Record) -> str | None:
    """Return the model's own name, without the owner or the folder that it lies in; None where there was none."""
    repo = record.model.get("repo")
    return PurePosixPath(repo).name if repo else None


def _details(record: Record, told: Generation) -> Iterator[tuple[str, str]]:
    """Key and value of each detail; what is not known is left out. `Steps` first, `Hashes` last: readers go by that."""
    yield "Steps", str(told.steps)
    scheduler = record.model.get("scheduler")
    if scheduler:
        sampler, schedule = _SAMPLERS.get(scheduler, (scheduler, None))
        yield "Sampler", _value(sampler)
        if schedule:
            yield "Schedule type", schedule
    # FLUX has both: the usual guidance, 1 where there is no second pass, and the one that was distilled into it.
    yield "CFG scale", f"{told.true_cfg or 1:g}"
    if told.guidance is not None:
        yield "Distilled CFG Scale", f"{told.guidance:g}"
    yield "Seed", str(record.seed)
    if told.width and told.height:
        yield "Size", f"{told.width}x{told.height}"
    weights = record.model.get("hash", "")[:_SHORT_HASH]
    if weights:
        yield "Model hash", _value(weights)
    model = model_name(record)
    if model:
        yield "Model", _value(model)
    if told.strength is not None:
        yield "Denoising strength", f"{told.strength:g}"
    yield "Version", _value(_program(record))
    if weights:
        yield "Hashes", f'{{"model": "{_value(weights)}"}}'


def _program(record: Record) -> str:
    return f"hotfolder {record.versions.get('hotfolder', '')}".strip()


def _whole_prompt(record: Record, told: Generation) -> str:
    negative = told.negative_prompt
    return (record.prompt or "") + (f"\nNegative prompt: {negative}" if negative else "")


def _xml(text: str) -> str:
    """Return a text as it stands in an element of XML."""
    return escape(_NO_XML.sub("", text), quote=False)


def _prompt(text: str) -> str:
    """Return a prompt in which no reader sees the end of the prompt too soon.

    Most look for the marks at the beginning of a line; sd-parsers for `Negative prompt:` anywhere.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    text = text.replace("Negative prompt:", "Negative prompt :")
    return re.sub(r"^(\s*)Steps:", r"\1Steps :", text, flags=re.MULTILINE)


def _value(text: str) -> str:
    """Return a value without the marks that part and quote the details."""
    return re.sub(r"[\s,:\"{}]+", " ", text).strip() or "unknown"
