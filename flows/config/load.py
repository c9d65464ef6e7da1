"""Read and write the settings: a YAML file and single values on the command line."""

from __future__ import annotations

import re
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from flows.config.settings import RunConfig
from flows.session import console
from flows.session.environment import SHARED, is_shared, restrict_access
from flows.session.errors import UserError, did_you_mean
from storage.files.commit import commit_file, make_folder
from storage.files.paths import StorePath
from storage.layout import open_store

# Raised by PyYAML for text that is not YAML, or for values with a wrong tag (`!!int x`, `!!bool x`).
_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError, RecursionError)


# Shortened: a few lines of YAML can stand for a value of billions of words.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_MOST_NAMED = 5
_MERGE = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.YAMLError):
    """A key occurs twice in one mapping; the message names it and both lines."""


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, except that it refuses repeated keys, of which PyYAML silently keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, in which merge keys (`<<`) are not resolved yet: they may repeat keys."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            first, line = lines.get((key.tag, key.value)), key.start_mark.line + 1
            if first is not None:
                where = f"in lines {first} and {line}" if first != line else f"twice in line {line}"
                raise RepeatedKeyError(f"{key.value} occurs {where}; keep one")
            lines[key.tag, key.value] = line
        return node


Section = TypeVar("Section", bound=BaseModel)


def parse_yaml(text: str) -> Any:
    """Read one document. Raises what `yaml.safe_load` raises, and RepeatedKeyError."""
    return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a safe loader


def load_config(
    path: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read the settings file and apply other values over it; later arguments override earlier ones.

    Args:
        path: YAML file; without one, the defaults.
        parameters: dotted name -> value, from a deployment's form; None values are left out.
        overrides: dotted name -> value, from the parameter `overrides` of a deployment.
        flags: dotted name -> value, from command-line options; None values are left out.
        assignments: "dotted.name=value" with the value in YAML.

    Raises:
        UserError: the file cannot be read, or a name or value is wrong; the message gives its origin and the rule.
    """
    tree = _read_tree(path) if path is not None else {}
    origins = _Origins(path, {})
    for kind, values in (("parameter {}", parameters), ("--{}", flags)):
        for name, value in (values or {}).items():
            if value is not None:
                # An option is called as the last part of its setting; the store's path is --store, trials are --search.
                option = name.removesuffix(".path").removesuffix(".trials").rpartition(".")[2]
                origins.assign(tree, name, value, kind.format(option))
    for name, value in (overrides or {}).items():
        origins.assign(tree, name, value, "parameter overrides")
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name.isprintable():
            raise UserError(f"--set takes NAME=VALUE, as in --set video.fps=25; got {assignment!r}")
        try:
            origins.assign(tree, name.strip(), parse_yaml(text), "--set")
        except RepeatedKeyError as error:
            raise UserError(f"--set {name}: {error}") from error
        except _NOT_YAML as error:
            raise UserError(f"--set {name}: {console.without_secrets(text)!r} is not a value in YAML") from error
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(" ".join(_explain(error, origins).split())) from error
    if mistaken := list(_booleans_as_numbers(tree, config)):
        raise UserError(
            "; ".join(f"setting {name}{origins.of(name)}: must be a number; got {value}" for name, value in mistaken)
        )
    return config if config.runner == "local" else _anywhere(config)


def _anywhere(settings: Section) -> Section:
    """Make the paths of files on this machine absolute: Dask's workers have other current folders."""
    changed: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            changed[name] = _anywhere(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            changed[name] = tuple(map(_anywhere, value))
        elif isinstance(value, Path) or (name in ("base_model", "weights") and value and Path(value).is_file()):
            changed[name] = type(value)(Path(value).absolute())
    return settings.model_copy(update=changed)


def dump_config(config: RunConfig) -> str:
    """Format the effective settings as commented YAML that `load_config` can read."""
    return "\n".join(_lines(config, "")) + "\n"


def read_yaml(path: Traversable, kind: str) -> Any:
    """Read a YAML file of some kind. Raises UserError if it cannot be read, is not YAML, or repeats a key."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the {kind} {path}: {error.strerror}") from error
    except RepeatedKeyError as error:
        raise UserError(f"{path}: {error}") from error
    except _NOT_YAML as error:
        place = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{place} is not YAML: {reason}") from error


def _read_tree(path: Path) -> dict[str, Any]:
    tree = read_yaml(path, "settings file")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold names and values, such as 'videos: clips'; see `traitline config show`")
    return tree


def _booleans_as_numbers(given: Any, taken: Any, name: str = "") -> Iterator[tuple[str, bool]]:
    """Yield names and values of booleans that pydantic has converted to numbers."""
    if isinstance(given, bool):
        if not isinstance(taken, bool):
            yield name, given
    elif isinstance(given, dict):
        for key, part in given.items():
            inner = getattr(taken, key) if isinstance(taken, BaseModel) else taken[key]
            yield from _booleans_as_numbers(part, inner, f"{name}.{key}" if name else key)
    elif isinstance(given, list):
        for place, (part, inner) in enumerate(zip(given, taken, strict=True)):
            yield from _booleans_as_numbers(part, inner, f"{name}.{place}")


@dataclass
class _Origins:
    """Where each setting comes from, for error messages.

    Args:
        given: dotted name -> origin, for all values that override the file.
    """

    path: Path | None
    given: dict[str, str]

    def assign(self, tree: dict[str, Any], name: str, value: Any, origin: str) -> None:
        """Set a value, or the settings given of a section. Raises UserError if an outer section is a value."""
        if isinstance(value, dict) and _settings_in(name):
            for inner, part in value.items():
                self.assign(tree, f"{name}.{inner}", part, origin)
            return
        *sections, last = name.split(".")
        branch: Any = tree
        for place, section in enumerate(sections, start=1):
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                outer = ".".join(sections[:place])
                raise UserError(
                    f"{outer} is a section of settings and cannot have the value {_shown(branch)}{self.of(outer)}; "
                    f"{origin} sets {name}"
                )
        branch[last] = value
        self.given = {known: by for known, by in self.given.items() if not known.startswith(f"{name}.")}
        self.given[name] = origin

    def of(self, name: str) -> str:
        """Return the origin of this setting, or of the settings in this section, in brackets; empty if unknown."""
        inside = [by for known, by in self.given.items() if known.startswith(f"{name}.")]
        around = [by for known, by in self.given.items() if f"{name}.".startswith(f"{known}.")]
        found = list(dict.fromkeys(around[-1:] if around else inside))
        if not around and self.path is not None and (line := _line_of(self.path, name)):
            found.append(f"{self.path}, line {line}")
        return f" ({'; '.join(found)})" if found else ""


def _line_of(path: Path, name: str) -> int | None:
    """Return the line of this setting in the settings file, or that of the innermost enclosing section."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, *_NOT_YAML):
        return None
    line = None
    parts = name.split(".")
    for place, part in enumerate(parts):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        # A key may be dotted by mistake.
        found = [(key, value) for key, value in pairs if key.value in (part, ".".join(parts[place:]))]
        if not found:
            break
        key, node = found[0]
        line = key.start_mark.line + 1
    return line


def _explain(error: ValidationError, origins: _Origins) -> str:
    """Describe every error in one line."""
    mistakes = [_mistake(dict(details), origins) for details in error.errors()]
    more = f"; and {len(mistakes) - _MOST_NAMED} more" if len(mistakes) > _MOST_NAMED else ""
    return "; ".join(mistakes[:_MOST_NAMED]) + more


def _mistake(details: dict[str, Any], origins: _Origins) -> str:
    name = ".".join(str(part) for part in details["loc"])
    origin = origins.of(name)
    if details["type"] == "extra_forbidden":
        outer, _, last = str(details["loc"][-1]).rpartition(".")
        if outer and name in _all_settings(RunConfig):
            return f"unknown setting {name}{origin}: write {last} below its section {outer} there"
        question = _nearest_setting(name)
        section = _settings_in(".".join(str(part) for part in details["loc"][:-1]))
        known = f"; known there: {', '.join(section)}" if section else ""
        return f"unknown setting {name}{origin}{question or known}"
    rule, got = details["msg"].removeprefix("Value error, "), _shown(details["input"])
    choices = re.findall("'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
    question = did_you_mean(details["input"], choices) if isinstance(details["input"], str) and choices else ""
    return f"setting {name}{origin}: {rule[0].lower()}{rule[1:]}; got {got}{question}"


def _nearest_setting(name: str) -> str:
    """Ask whether a setting with a similar name was meant, in the same section or in another one."""
    section, _, last = name.rpartition(".")
    there = did_you_mean(last, _settings_in(section))
    if there:
        return there.replace("did you mean ", f"did you mean {section}." if section else "did you mean ")
    ends: dict[str, list[str]] = defaultdict(list)
    for setting in _all_settings(RunConfig):
        ends[setting.rpartition(".")[2]].append(setting)
    near = get_close_matches(last, ends, n=1, cutoff=0.8)
    return f", did you mean {' or '.join(ends[near[0]])}?" if near else ""


def _all_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_settings(field.annotation, f"{prefix}{name}.")


def _settings_in(section: str) -> list[str]:
    prefix = f"{section}." if section else ""
    names = (name.removeprefix(prefix) for name in _all_settings(RunConfig) if name.startswith(prefix))
    return [name for name in names if "." not in name]


def _shown(value: Any) -> str:
    try:
        return str(console.without_secrets(_SHORT.repr(value)))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number that is too long"


def _lines(model: BaseModel, indent: str) -> list[str]:
    lines = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            lines += ["", f"{indent}{name}:  # {_summary(value)}", *_lines(value, indent + "  ")]
        else:
            plain = model.model_dump(mode="json", include={name})[name]
            text = console.masked(
                yaml.safe_dump({name: plain}, default_flow_style=True, width=10_000, allow_unicode=True)
            )
            lines.append(f"{indent}{text.strip()[1:-1]}  # {field.description}")
    return lines


def _summary(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]


def existing_store(root: str | StorePath, *, upgrading: bool = False) -> StorePath:
    """Return an existing store, and give files that this process writes from now on the store's access.

    Raises:
        UserError: there is none.
        StoreError: the folder is not a store.
    """
    folder = open_store(root, upgrading=upgrading)
    if not folder.is_dir():
        raise UserError(
            f"there is no store {root}; give its folder with --store DIR, or create one with `traitline extract`"
        )
    restrict_access(folder)
    return folder


def keep_settings(config: RunConfig, name: str) -> StorePath:
    """Write a command's settings to STORE/runs, and return the path of its log, beside them.

    Files that this process writes from now on get the access of the store, which is created if necessary.

    Raises:
        UserError: the settings ask for a shared store, but the existing one is private.
    """
    store = open_store(config.store.path)
    if config.store.access == "group" and isinstance(store, Path):
        _share(store)
    restrict_access(store)
    folder = store / "runs"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    with commit_file(folder / f"{stamp}-{name}.yaml") as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")
    return folder / f"{stamp}-{name}.log"


def _share(store: Path) -> None:
    if not store.exists():
        make_folder(store)
        store.chmod(0o770 | SHARED)
    elif not is_shared(store):
        raise UserError(
            f"store.access is group, but {store} is not shared with its group: run `chmod -R g+rwX {store}` and "
            f"`find {store} -type d -exec chmod g+s {{}} +`, or remove the setting"
        )
