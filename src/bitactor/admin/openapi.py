"""The API as one list of operations, from which both the routes and the OpenAPI document are made."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Final

import bitactor
from bitactor.admin import query, rows
from bitactor.admin.access import Right
from bitactor.admin.metrics import TICK_BOUNDS
from bitactor.runtime.reports import (
    Health,
    LogStatistics,
    ProducerInfo,
    ServiceStatistics,
    SnapshotInfo,
    SnapshotStatistics,
)
from bitactor.statistics import Ticks

Schema = dict[str, Any]
PREFIX: Final = "/api/v1"
ARROW: Final = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path, who may ask it, the handler's name in Api, and what it takes and gives.

    query: parameters by name; body: members of a JSON object, None for none; answer: members beside `position`.
    """

    method: str
    path: str
    right: Right
    handler: str
    summary: str
    answer: dict[str, Schema]
    query: dict[str, Schema] = dataclasses.field(default_factory=dict)
    body: dict[str, Schema] | None = None
    arrow: bool = False
    errors: tuple[int, ...] = ()


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(members: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": members, "required": list(members)}


TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER_OR_TEXT: Final[Schema] = {"type": ["integer", "string"]}
ANY: Final[Schema] = {}
INTEGERS: Final = {
    "integers": {
        "schema": {"type": "string", "enum": ["number", "text"], "default": "number"},
        "description": "How 64-bit integers are written; text for readers whose numbers are doubles.",
    }
}
_SELECT: Final = {
    "columns": {"schema": TEXT, "description": "Names, with commas between; default: all."},
    "filter": {
        "schema": _array(TEXT),
        "description": "A comparison, such as volume>=100; several must all hold.",
    },
    "sort": {"schema": TEXT, "description": "A column; -column for the largest first."},
    "limit": {
        "schema": {"type": "integer", "minimum": 0, "maximum": rows.ROWS_MAX, "default": rows.ROWS_DEFAULT},
        "description": "Most rows. Without it Arrow has all.",
    },
}
_AS_TEXT_KEY: Final = {
    "text": {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "true: the key is a text even if it is all digits.",
    }
}
_COLUMNS: Final = _array(_object({"name": TEXT, "type": TEXT}))
_ROWS: Final = _array(_array(ANY))


def schema_of(hint: Any) -> Schema:
    """The JSON Schema of what `api.figures` makes of a value of this type."""
    if hint is Ticks:
        counted = len(TICK_BOUNDS)
        members = {f.name: schema_of(f.type) for f in dataclasses.fields(Ticks) if f.name != "counts"}
        bounds = _array(COUNT) | {"minItems": counted, "maxItems": counted}
        counts = _array(COUNT) | {"minItems": counted + 1, "maxItems": counted + 1}
        return _object(members | {"bounds": bounds, "counts": counts})
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return _object({field.name: schema_of(hints[field.name]) for field in dataclasses.fields(hint)})
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        given = [schema_of(one) for one in inside if one is not type(None)]
        return {"anyOf": [*given, {"type": "null"}]} if type(None) in inside else {"anyOf": given}
    if origin in (tuple, list):
        return _array(schema_of(inside[0]))
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inside[1])}
    return {"type": {int: "integer", float: "number", bool: "boolean", str: "string"}[hint]}


OPERATIONS: Final = (
    Operation(
        "GET", "/kinds", Right.READ, "kinds", "Every declared kind.",
        {"kinds": _array(_object({"name": TEXT, "number": COUNT, "value": TEXT, "aux": TEXT}))},
    ),
    Operation(
        "GET", "/actors", Right.READ, "actors", "Every actor: kinds, fields of its state, limits, number of keys.",
        {"actors": _array(_object({
            "name": TEXT, "kinds": _array(TEXT), "emits": _array(TEXT),
            "fields": _array(_object({"name": TEXT, "type": TEXT, "count": {"type": ["integer", "null"]}})),
            "keys": COUNT, "tick_budget": {"type": ["integer", "null"]}, "expire_after_s": {"type": ["number", "null"]},
        }))},
    ),
    Operation(
        "GET", "/actors/{actor}/state/{key}", Right.READ, "state", "The state of one key, a number or a text.",
        {"actor": TEXT, "key": NUMBER_OR_TEXT, "name": {"type": ["string", "null"]}, "state": {"type": "object"}},
        query=_AS_TEXT_KEY | INTEGERS, errors=(404,),
    ),
    Operation(
        "GET", "/actors/{actor}/table", Right.READ, "table", "Rows of an actor's table: filtered, sorted, limited.",
        {"actor": TEXT, "keys": COUNT, "matched": COUNT, "columns": _COLUMNS, "rows": _ROWS},
        query=_SELECT | INTEGERS, arrow=True, errors=(404,),
    ),
    Operation(
        "POST", "/query", Right.READ, "query", "One SELECT over the actors' tables; a table is named as its actor.",
        {"tables": {"type": "object", "additionalProperties": COUNT}, "columns": _COLUMNS,
         "truncated": {"type": "boolean"}, "rows": _ROWS},
        query=INTEGERS,
        body={"sql": TEXT, "limit": {"type": "integer", "minimum": 0, "maximum": query.ROWS_MAX,
                                     "default": query.ROWS_DEFAULT}},
        arrow=True, errors=(408, 413),
    ),
    Operation(
        "GET", "/statistics", Right.READ, "statistics", "Everything that is counted, and the health.",
        {"time": {"type": "number"}, "health": schema_of(Health), "names": COUNT,
         "statistics": schema_of(ServiceStatistics)},
    ),
    Operation(
        "GET", "/log", Right.READ, "log", "The log and its newest snapshot.",
        {"log": schema_of(LogStatistics), "snapshot": schema_of(SnapshotStatistics)},
    ),
    Operation(
        "GET", "/producers", Right.READ, "producers", "The producer table.",
        {"producers": _array(schema_of(ProducerInfo) | {"properties": schema_of(ProducerInfo)["properties"]
                                                        | {"id": NUMBER_OR_TEXT}})},
        query=INTEGERS,
    ),
    Operation(
        "GET", "/cluster", Right.READ, "cluster", "Replicas and lanes; of a service with log.kind jetstream.",
        {"replicas": _array({"type": "object"}), "lanes": _array({"type": "object"})}, errors=(409,),
    ),
    Operation(
        "POST", "/cluster/drain", Right.ADMIN, "drain", "Give this replica's lanes to the others, and take none again.",
        {"drained": TEXT}, body={}, errors=(409,),
    ),
    Operation(
        "POST", "/producers/forget", Right.ADMIN, "forget", "Forget a producer: its next hello begins anew at 0.",
        {"forgotten": NUMBER_OR_TEXT}, query=INTEGERS, body={"name": TEXT, "id": NUMBER_OR_TEXT}, errors=(404,),
    ),
    Operation(
        "POST", "/snapshot", Right.ADMIN, "snapshot", "Write a snapshot; answered when it is durable.",
        {"snapshot": schema_of(SnapshotInfo)}, body={}, errors=(409,),
    ),
    Operation(
        "POST", "/erase", Right.ADMIN, "erase", "Erase a key from every actor; answered when durable and applied.",
        {"erased": NUMBER_OR_TEXT}, query=INTEGERS, body={"key": NUMBER_OR_TEXT, "text": TEXT},
    ),
)  # fmt: skip

_ERRORS: Final = {
    400: "What was asked cannot be; `message` says what would.",
    401: "No token, or one that nobody has.",
    403: "The identity may not, or another site's page asked.",
    404: "No such actor, key or producer.",
    408: "It took too long and was stopped.",
    409: "Not possible with these settings.",
    413: "Too long.",
    503: "Not started, stopping, or too busy; try again after `Retry-After` seconds.",
}


def _operation(one: Operation) -> dict[str, Any]:
    answer = _object({"position": {"type": ["integer", "null"], "minimum": 0}} | one.answer)
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if one.arrow:
        content[ARROW] = {"schema": {"type": "string", "format": "binary"}}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": TEXT}
        for name in ("actor", "key")
        if f"{{{name}}}" in one.path
    ]
    parameters += [{"name": name, "in": "query"} | given for name, given in one.query.items()]
    codes = {400, 401, 403, 503, *one.errors}
    responses: dict[str, Any] = {
        "200": {
            "description": "Done.",
            "headers": {"bitactor-position": {"schema": COUNT, "description": "Signals handled before this."}},
            "content": content,
        }
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses |= {str(code): {"description": _ERRORS[code], "content": error} for code in sorted(codes)}
    made: dict[str, Any] = {"operationId": one.handler, "summary": one.summary, "responses": responses}
    made["x-right"] = one.right.name.lower()
    if parameters:
        made["parameters"] = parameters
    if one.body:
        schema = {"type": "object", "properties": one.body, "additionalProperties": False}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(PREFIX + one.path, {})[one.method.lower()] = _operation(one)
    error = _object({"status": {"type": "integer"}, "code": TEXT, "message": TEXT})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BitActor",
            "version": bitactor.__version__,
            "description": "Live state, statistics and commands of one service. Every answer carries its position.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": error},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }
