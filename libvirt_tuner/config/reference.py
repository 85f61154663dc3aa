"""Generates files from the table of settings: both schemas, the example file and the reference page.

``make settings`` writes them. A test checks that they are up to date.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping

from libvirt_tuner.config.file import MATCH
from libvirt_tuner.config.limits import LIMITS
from libvirt_tuner.config.policy import CONFIG_FILE
from libvirt_tuner.config.settings import LISTABLE, SETTINGS, Setting

_WIDTH = 98


def config_schema() -> str:
    """schemas/config.schema.json, for editors and other programs: JSON Schema, draft 2020-12."""
    references = {name: {"$ref": f"#/$defs/{name}"} for name in SETTINGS}
    match = {"type": "string", "minLength": 1, "description": MATCH}
    tables = {
        "limits": _table(
            "Settings allowed in a domain's metadata", {name: _json(one) for name, one in LIMITS.items()}
        ),
        "policy": _table("Settings for every domain", references),
        "domain": {
            "title": "Settings for the domains whose name matches; a later table overrides an earlier one",
            "type": "array",
            "items": _table("One pattern", {"match": match, **references}) | {"required": ["match"]},
        },
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://libvirt-tuner.org/schemas/config.schema.json",
        **_table(CONFIG_FILE, tables),
        "$defs": {name: _json(one) for name, one in SETTINGS.items()},
    }
    return json.dumps(schema, indent=2) + "\n"


def _table(title: str, properties: Mapping[str, object]) -> dict[str, object]:
    return {"title": title, "type": "object", "properties": properties, "additionalProperties": False}


def _json(one: Setting) -> dict[str, object]:
    values = [form for form in one.accepts if not isinstance(form, type | range)]
    choices: list[dict[str, object]] = [{"enum": values}] if values else []
    choices += [_json_form(one, form) for form in one.accepts if isinstance(form, type | range)]
    accepted = choices[0] if len(choices) == 1 else {"anyOf": choices}
    return {"description": one.help, "default": _spelled_default(one), **accepted}


def _json_form(one: Setting, form: object) -> dict[str, object]:
    if form is bool:
        return {"type": "boolean"}
    if form is list:
        return {"type": "array", "items": {"enum": list(LISTABLE)}}
    if isinstance(form, range):
        return {"type": "integer", "minimum": form.start, "maximum": form.stop - 1}
    return {"type": "string", "pattern": f"^(?:{one.pattern(form)})$(?!\\n)"}


def _spelled_default(one: Setting) -> object:
    return sorted(one.default) if isinstance(one.default, frozenset) else one.default


_RNG = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- The policy of one domain, kept in its metadata through libvirt: `virsh metadata` with this namespace
     as the uri and, for instance, <policy placement="shared" poll-us="200"/>. -->
<grammar xmlns="http://relaxng.org/ns/structure/1.0"
         xmlns:a="http://relaxng.org/ns/compatibility/annotations/1.0"
         ns="https://libvirt-tuner.org/policy/1"
         datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
  <start>
    <element name="policy">
{attributes}
      <empty/>
    </element>
  </start>
</grammar>
"""
_RNG_ATTRIBUTE = """\
      <optional>
        <attribute name="{name}">
          <a:documentation>{help}</a:documentation>
          <choice>
{forms}
          </choice>
        </attribute>
      </optional>"""
_RNG_NUMBER = """\
<data type="unsignedInt">
  <param name="pattern">[0-9]{{1,{digits}}}</param>
  <param name="minInclusive">{least}</param>
  <param name="maxInclusive">{most}</param>
</data>"""
_RNG_TEXT = """\
<data type="string">
  <param name="pattern">{pattern}</param>
</data>"""


def policy_grammar() -> str:
    """schemas/policy.rng, for ``<policy>`` in the metadata: RELAX NG."""
    attributes = [
        _RNG_ATTRIBUTE.format(
            name=one.attribute,
            help=_escaped(one.help),
            forms=textwrap.indent("\n".join(_rng_forms(one)), " " * 12),
        )
        for one in map(SETTINGS.__getitem__, LISTABLE)
    ]
    return _RNG.format(attributes="\n".join(attributes))


def _rng_forms(one: Setting) -> Iterator[str]:
    for form in one.accepts:
        if isinstance(form, range):
            most = form.stop - 1
            yield _RNG_NUMBER.format(digits=len(str(most)), least=form.start, most=most)
        elif form in (str, frozenset):
            yield _RNG_TEXT.format(pattern=_escaped(one.pattern(form)))
        else:
            yield from (f"<value>{_escaped(text)}</value>" for text in one.forms(form, in_file=False))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


_EXAMPLE = """\
# {file}
#
# A later setting overrides an earlier one: built-in defaults, [policy], each matching [[domain]] in
# the order of this file, the metadata of the domain:
#   virsh metadata DOMAIN --uri https://libvirt-tuner.org/policy/1 --key tuner \\
#     --set '<policy placement="shared" poll-us="200"/>'
# (with dashes: poll-us, rx-queue-size). Lines that begin with "#" and no space show the defaults.
# docs/policy.md has the values of each setting.

[policy]
{policy}

[limits]
{limits}

# [[domain]]
# match = "web-*"
# placement = "shared"
"""


def example() -> str:
    """docs/libvirt-tuner.toml.example: every setting with its default, commented out."""
    return _EXAMPLE.format(
        file=CONFIG_FILE, policy=_example_table(SETTINGS.values()), limits=_example_table(LIMITS.values())
    )


def _example_table(settings: Iterable[Setting]) -> str:
    return "\n\n".join(f"{_comment(one.help)}\n#{one.name} = {_toml_default(one)}" for one in settings)


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _toml_default(one: Setting) -> str:
    return json.dumps(_spelled_default(one))


_PAGE = """\
# Policy

You can set the policy in `{file}` and in the metadata of a domain. The built-in defaults come
first, then `[policy]`, then each `[[domain]]` whose `match` (a shell pattern) matches the domain's name, in
the order of the file, then the metadata. Each later setting overrides the earlier one.

```toml
[policy]
placement = "shared"

[[domain]]
match = "web-*"
placement = "dedicated"
```

In the metadata, settings are attributes, with dashes instead of underscores:

```sh
virsh metadata DOMAIN --uri https://libvirt-tuner.org/policy/1 --key tuner \\
  --set '<policy placement="shared" poll-us="200"/>'
```

`[limits]` says which settings are allowed in metadata. Others are ignored and reported. If a table of the
file has a mistake, the whole table is ignored. If the metadata has a mistake, all of it is ignored. Until you
fix the mistake, nothing new is changed. `libvirt-tuner config check` shows each mistake with file and line,
the value and what is allowed.

`schemas/config.schema.json` (JSON Schema) and `schemas/policy.rng` (RELAX NG) describe file and metadata for
other programs. `libvirt-tuner.toml.example` shows every setting with its default.

## `[policy]` and `[[domain]]`

{policy}

## `[limits]`

{limits}
"""


def page() -> str:
    """docs/policy.md: the reference page."""
    policy = "\n\n".join(_section(one, in_metadata=True) for one in SETTINGS.values())
    limits = "\n\n".join(_section(one, in_metadata=False) for one in LIMITS.values())
    return _PAGE.format(file=CONFIG_FILE, policy=policy, limits=limits)


_ALLOWED = {
    "yes": "yes",
    "listed": "if `[limits]` lists it",
    "never": "no",
}


def _section(one: Setting, *, in_metadata: bool) -> str:
    rows = [f"- Values: {one.expected()}", f"- Default: `{_toml_default(one)}`"]
    if in_metadata:
        rows.append(f"- In metadata: {_ALLOWED[one.metadata]}")
        if one.metadata != "never":
            rows[-1] += f", as `{one.attribute}`"
    body = textwrap.fill(one.help, 112, break_on_hyphens=False)
    return "\n".join([f"### `{one.name}`", "", body, "", *rows])


#: File by file, from the top of the repository.
FILES: Mapping[str, Callable[[], str]] = {
    "schemas/config.schema.json": config_schema,
    "schemas/policy.rng": policy_grammar,
    "docs/libvirt-tuner.toml.example": example,
    "docs/policy.md": page,
}
