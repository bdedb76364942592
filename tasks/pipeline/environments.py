"""Configurations by environment: usual values, the environment's layer over them, and a file of yours over that.

No variable of the surroundings has a say: the same files give the same configuration on every host.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.config_file import read_config_file
from absurd.tasks.radio.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from absurd.tasks.pipeline.config import PipelineConfig

BASE = "base_config"
"""In a file with a section for each environment: what all of them have."""
Layer = tuple[str, Mapping[str, Any]]
"""Where it is from, in words, and its keys."""


def environment_names() -> list[str]:
    """Environments that there are."""
    return sorted(each.name[:-5] for each in _shipped().iterdir() if each.name.endswith(".toml"))


def load_pipeline_config(
    environment: str = "development",
    path: str | os.PathLike[str] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> PipelineConfig:
    """The configuration of an environment, with a TOML, JSON or YAML file laid over it, and `overrides` over that.

    Tables are merged key by key, at every depth; all else is replaced.  The file's ending tells its format, YAML where
    it is neither ``.toml`` nor ``.json``, and no key may stand in a table twice.  It may have sections ``base_config``
    and one for each environment, of which that of `environment` goes over ``base_config``.

    Raises ConfigurationError that names key, value and file: for unknown environments and keys (with the nearest known
    one), values of another type or out of bounds, and files that cannot be read.
    """
    names = environment_names()
    if environment not in names:
        raise ConfigurationError(
            f"there is no environment {environment!r}{_near(environment, names)}; there are {', '.join(names)}"
        )
    shipped = f"{environment}.toml"
    layers: list[Layer] = [(shipped, tomllib.loads((_shipped() / shipped).read_text(encoding="utf-8")))]
    if path is not None:
        layers += _file_layers(Path(path), environment)
    if overrides is not None:
        layers.append(("overrides", overrides))
    return merge(environment, layers)


def merge(environment: str, layers: list[Layer]) -> PipelineConfig:
    """The configuration of layers, each over the ones before it.  Raises ConfigurationError."""
    from pydantic import ValidationError

    from absurd.tasks.pipeline.config import PipelineConfig

    merged: dict[str, Any] = {"environment": environment}
    for source, layer in layers:
        _refuse_unknown(layer, PipelineConfig, source)
        if layer.get("environment", environment) != environment:
            raise ConfigurationError(
                f"{source} is of environment {layer['environment']!r}, and {environment!r} was asked for",
                key="environment",
            )
        _lay_over(merged, layer)
    try:
        return PipelineConfig.model_validate(merged)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False), layers) from None


def known_keys() -> list[str]:
    """Every key with its sections, as in ``calibration.gcal_solint``."""
    from absurd.tasks.pipeline.config import PipelineConfig

    return [name for name, _ in described_keys(PipelineConfig)]


def described_keys(model: type[BaseModel], *above: str) -> Iterator[tuple[str, Any]]:
    """Each key below a section, with its field: default, meaning, ``json_schema_extra["read_by"]``."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from described_keys(section, *above, name)
        else:
            yield ".".join((*above, name)), field


def pipeline_config_schema() -> dict[str, Any]:
    """JSON schema of a configuration, for editors and other programs; ``read_by`` tells which stages read a key."""
    from absurd.tasks.pipeline.config import PipelineConfig

    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | PipelineConfig.model_json_schema()


# Files -------------------------------------------------------------------------------------------


def _file_layers(path: Path, environment: str) -> list[Layer]:
    told = _read(path)
    if not isinstance(told, dict):
        raise ConfigurationError(f"{path} must hold a table of keys, it holds a {type(told).__name__}")
    named = {BASE, *environment_names()}
    if not named & told.keys():
        return [(str(path), told)]
    if other := told.keys() - named:
        raise ConfigurationError(
            f"{path} has sections by environment, so all its keys must stand in one: {', '.join(sorted(other))} do not"
        )
    for name, section in told.items():
        if not isinstance(section, dict):
            raise ConfigurationError(f"{name} in {path} is {section!r}; it must be a table of keys")
    return [(f"{path}, section {name}", told[name]) for name in (BASE, environment) if name in told]


def _read(path: Path) -> Any:
    try:
        told = read_config_file(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return {} if told is None else told


def _shipped() -> Traversable:
    return files("absurd.tasks.pipeline") / "environments"


# Layers ------------------------------------------------------------------------------------------


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping):
            inner = below.get(key)
            below[key] = dict(inner) if isinstance(inner, Mapping) else {}
            _lay_over(below[key], value)
        else:
            below[key] = value


def _refuse_unknown(layer: Mapping[str, Any], model: type[BaseModel], source: str, *above: str) -> None:
    """Raise ConfigurationError for the first key that no section has."""
    for key, value in layer.items():
        name = ".".join((*above, str(key)))
        field = model.model_fields.get(str(key))
        if field is None:
            own = [".".join((*above, each)) for each in model.model_fields]
            raise ConfigurationError(
                f"{name} in {source} is not a key of the pipeline{_near(name, own) or _elsewhere(str(key))}", key=name
            )
        section = _section(field.annotation)
        if section is not None:
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"{name} in {source} is {value!r}; it must be a table of keys", key=name)
            _refuse_unknown(value, section, source, *above, str(key))


def _section(annotation: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _refusal(errors: list[Any], layers: list[Layer]) -> ConfigurationError:
    """What pydantic found, each with key, value, and the layer that it is from."""
    told = []
    for each in errors:
        place = [str(part) for part in each["loc"]]
        name = ".".join(place) or "the configuration"
        source = next((source for source, layer in reversed(layers) if _has(layer, place)), "the usual values")
        message = each["msg"].removeprefix("Value error, ")
        is_whole = isinstance(each["input"], Mapping) or not place
        value = "" if is_whole else f" is {each['input']!r}"
        told.append(f"{name} in {source}{value}: {message[:1].lower() + message[1:]}")
    return ConfigurationError("; ".join(told), key=".".join(str(part) for part in errors[0]["loc"]))


def _has(layer: Any, place: list[str]) -> bool:
    for part in place:
        if isinstance(layer, list):
            return True
        if not isinstance(layer, Mapping) or part not in layer:
            return False
        layer = layer[part]
    return True


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _elsewhere(key: str) -> str:
    """Keys of that name in other sections, or nearly."""
    known = known_keys()
    same = [name for name in known if name.rpartition(".")[2] == key]
    if same:
        return f"; did you mean {same[0]}?"
    near = difflib.get_close_matches(key, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.75)
    return f"; did you mean {next(name for name in known if name.rpartition('.')[2] == near[0])}?" if near else ""
