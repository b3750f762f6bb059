//! The interface described for machines (OpenAPI 3.1): what `/openapi.json` answers.

use super::definitions::DIRECTORY_TYPE;
use super::router::DOCUMENT_PATHS;
use serde_json::{Map, Value, json};

/// One thing a path does.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Query parameters and headers: (name, where, description).
    parameters: &'static [(&'static str, &'static str, &'static str)],
    /// Media types of the body and its schema.
    body: Option<(&'static [&'static str], &'static str)>,
    /// Status, what it means, schema.
    answers: &'static [(&'static str, &'static str, &'static str)],
}

const GET: Operation =
    Operation { method: "get", path: "", summary: "", parameters: &[], body: None, answers: &[("200", "It", "any")] };

const DRY_RUN: (&str, &str, &str) = ("dry_run", "query", "true: only say what would change");
const ALLOW_BREAKING: (&str, &str, &str) =
    ("allow_breaking", "query", "true: do it although something would stop working");
const WAIT: (&str, &str, &str) = ("wait", "query", "false: answer at once with 202 and the `job` that makes it live");
const IF_MATCH: (&str, &str, &str) = ("If-Match", "header", "the revision that was seen");
const INT64: (&str, &str, &str) = ("int64", "query", "string: write int64 values as text");

/// Of what plans, and applies unless it is a dry run.
const REMOVAL: &[(&str, &str, &str)] = &[
    ("200", "What changes, and the revision", "plan"),
    ("202", "With wait=false: what changes, and the job that does it", "plan"),
    ("404", "There is no such thing", "problem"),
    ("409", "Another revision is live, or something would break", "problem"),
];

/// Below `/v1/projects/{project}`.
const IN_PROJECT: &[Operation] = &[
    Operation {
        method: "post",
        path: "/modules",
        summary: "Upload a module of UDFs",
        parameters: &[("name", "query", "the module's name; required")],
        body: Some((&["application/wasm", "application/octet-stream"], "binary")),
        answers: &[
            ("200", "These bytes were there already", "module"),
            ("201", "A new version", "module"),
            ("422", "Refused: what was seen, the rule and the remedy", "problem"),
        ],
    },
    Operation { path: "/modules", summary: "All versions of all modules", ..GET },
    Operation { path: "/modules/{name}", summary: "The versions of a module", ..GET },
    Operation {
        path: "/modules/{name}/{version}",
        summary: "A version of a module; with Accept: application/wasm its bytes",
        answers: &[("200", "The version", "module")],
        ..GET
    },
    Operation {
        method: "delete",
        path: "/modules/{name}/{version}",
        summary: "Delete a version that nothing uses",
        answers: &[("204", "Deleted", ""), ("409", "It is used", "problem")],
        ..GET
    },
    Operation {
        method: "put",
        path: "/definitions",
        summary: "Plan definitions and, unless dry, apply them",
        parameters: &[
            DRY_RUN,
            ("upgrade", "query", "modules that may move to their newest version, separated by commas; * for all"),
            ("locked", "query", "true: fail if a module would move"),
            ALLOW_BREAKING,
            ("prune", "query", "true: remove what this set has registered and the definitions do not have"),
            ("take_over", "query", "a set whose documents may be claimed by that of the definitions"),
            (
                "from",
                "query",
                "now: what is new begins empty, where the stream stands, and says since when it is complete",
            ),
            ("same_rows", "query", "true: files at another path hold the rows that the state is made of; it is kept"),
            WAIT,
            IF_MATCH,
        ],
        body: Some((&["application/yaml", "application/json", DIRECTORY_TYPE], "any")),
        answers: &[
            ("200", "What changes, and the revision", "plan"),
            ("202", "With wait=false: what changes, and the job that does it", "plan"),
            ("409", "Another revision is live, or something would break", "problem"),
            ("422", "The definitions are wrong: file, line and remedy of each problem", "problem"),
        ],
    },
    Operation { path: "/definitions", summary: "All that is registered", ..GET },
    Operation { path: "/revisions", summary: "What was applied when, newest first", ..GET },
    Operation {
        method: "post",
        path: "/rollback",
        summary: "Make an older revision's project live again, as a new revision",
        parameters: &[DRY_RUN, ALLOW_BREAKING, WAIT, IF_MATCH],
        body: Some((&["application/json"], "rollback")),
        answers: REMOVAL,
    },
    Operation {
        method: "post",
        path: "/feature-views/{name}/pause",
        summary: "Let a view's values stay as they are: they are looked up and not folded",
        parameters: &[DRY_RUN, WAIT, IF_MATCH],
        answers: REMOVAL,
        ..GET
    },
    Operation {
        method: "post",
        path: "/feature-views/{name}/resume",
        summary: "Let a paused view's values go on, with all that has come meanwhile",
        parameters: &[DRY_RUN, WAIT, IF_MATCH],
        answers: REMOVAL,
        ..GET
    },
    Operation {
        method: "delete",
        path: "/feature-views/{name}/features/{feature}",
        summary: "Remove a feature",
        parameters: &[DRY_RUN, ALLOW_BREAKING, WAIT, IF_MATCH],
        answers: REMOVAL,
        ..GET
    },
    Operation {
        method: "post",
        path: "/sources/{name}/events",
        summary: "Push events",
        parameters: &[
            ("wait", "query", "served: answer when a lookup would see them"),
            ("Idempotency-Key", "header", "names this push for a day: a repeat is answered as the first was"),
        ],
        body: Some((&["application/x-ndjson", "application/json"], "any")),
        answers: &[
            ("202", "Durable", "pushed"),
            ("413", "Too large: send it in parts", "problem"),
            ("415", "No type that is taken", "problem"),
            ("422", "The key came with another body", "problem"),
            ("503", "Not now: see Retry-After", "problem"),
        ],
    },
    Operation {
        path: "/sources/{name}/peek",
        summary: "A few rows as they are decoded, and what could not be",
        parameters: &[
            ("n", "query", "how many rows, 1 to 1000; 5 if missing"),
            ("batch", "query", "true: the first rows of the source's files, instead of the newest of its log"),
            ("from_start", "query", "true: the oldest rows of the log"),
        ],
        answers: &[("200", "The rows", "peeked"), ("404", "No such source", "problem")],
        ..GET
    },
    Operation {
        method: "post",
        path: "/features",
        summary: "Look features up for many entities",
        parameters: &[INT64],
        body: Some((&["application/json"], "lookup")),
        answers: &[
            ("200", "One column a feature, one position an entity row", "found"),
            ("404", "No such service, view or feature", "problem"),
            ("409", "A fingerprint is not the expected one", "problem"),
            ("422", "A key is missing or of another type", "problem"),
        ],
    },
    Operation {
        path: "/feature-views/{name}/values",
        summary: "One entity's values: ?product_id=p1",
        parameters: &[INT64],
        answers: &[("200", "The values", "any"), ("404", "No such view", "problem")],
        ..GET
    },
    Operation {
        path: "/explain",
        summary: "Why a value is what it is: ?view=…&feature=…&product_id=p1",
        parameters: &[
            ("view", "query", "the view; required"),
            ("feature", "query", "a value column of it; required"),
            ("as_of", "query", "the instant, RFC 3339; that of the served value if missing, which is compared then"),
            ("rows", "query", "so many rows are told, the last ones; 50 if missing"),
            ("case", "query", "true: also as the YAML of a test"),
            INT64,
        ],
        answers: &[
            ("200", "Its rows in canonical order, in or out and why, and the value after each", "explained"),
            ("404", "No such view or feature", "problem"),
            ("422", "A key is missing or of another type, or pinned files are gone", "problem"),
        ],
        ..GET
    },
    Operation {
        path: "/dead-letters",
        summary: "Rows that could not be processed",
        parameters: &[
            ("source", "query", "of this source only"),
            ("id", "query", "this one"),
            ("open", "query", "`true`: only those whose row is still missing somewhere"),
        ],
        answers: &[("200", "Letters", "dead_letters"), ("404", "No such source", "problem")],
        ..GET
    },
    Operation {
        method: "post",
        path: "/dead-letters/replay",
        summary: "Process letters again, after the fix",
        body: Some((&["application/json"], "replay")),
        answers: &[("200", "What became of them", "replayed"), ("404", "No such letter, source or view", "problem")],
        ..GET
    },
    Operation {
        method: "post",
        path: "/jobs",
        summary: "Start verify, materialize, rebuild, a snapshot or a training set",
        parameters: &[("wait", "query", "false, or left out: a job is not waited for")],
        body: Some((&["application/json"], "any")),
        answers: &[("202", "Its id", "any"), ("422", "No such job, or a part of it is missing", "problem")],
    },
    Operation { path: "/jobs", summary: "Jobs of this process", ..GET },
    Operation {
        path: "/jobs/{id}",
        summary: "How far a job is, and its result",
        answers: &[("200", "The job", "any"), ("404", "No such job", "problem")],
        ..GET
    },
    Operation {
        method: "delete",
        path: "/jobs/{id}",
        summary: "Cancel a job: it ends soon, between two batches of rows",
        answers: &[("202", "The job", "any"), ("404", "No such job", "problem"), ("409", "It has ended", "problem")],
        ..GET
    },
    Operation { path: "/status", summary: "Sources, lag, watermarks, checkpoints, state", ..GET },
];

/// At the root.
const AT_ROOT: &[Operation] = &[
    Operation { path: "/healthz", summary: "Whether the process lives", ..GET },
    Operation { path: "/readyz", summary: "Whether lookups are answered", ..GET },
    Operation { path: "/metrics", summary: "Metrics, as text for Prometheus", ..GET },
    Operation { path: "/openapi.json", summary: "This document", ..GET },
    Operation { path: "/v1/schema", summary: "The JSON Schema of definitions", ..GET },
    Operation { path: "/v1/projects", summary: "The projects", ..GET },
];

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in AT_ROOT {
        add(&mut paths, operation.path.to_owned(), operation);
    }
    for operation in IN_PROJECT {
        add(&mut paths, format!("/v1/projects/{{project}}{}", operation.path), operation);
    }
    for (path, kind) in DOCUMENT_PATHS {
        let all = format!("/v1/projects/{{project}}/{path}");
        let one = format!("{all}/{{name}}");
        add(&mut paths, all.clone(), &Operation { summary: "All that are registered", ..GET });
        if let Some(summary) = paths.get_mut(&all).and_then(|path| path.pointer_mut("/get/summary")) {
            *summary = json!(format!("Every registered {}", kind.singular()));
        }
        add(&mut paths, one.clone(), &Operation { summary: "One that is registered", ..GET });
        if let Some(summary) = paths.get_mut(&one).and_then(|path| path.pointer_mut("/get/summary")) {
            *summary = json!(format!("A registered {}", kind.singular()));
        }
        let parameters = &[DRY_RUN, ALLOW_BREAKING, WAIT, IF_MATCH];
        let remove = Operation { method: "delete", summary: "Remove it", parameters, answers: REMOVAL, ..GET };
        add(&mut paths, one, &remove);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Onefold",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Features written once in WebAssembly, the same in a stream and in a batch",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn add(paths: &mut Map<String, Value>, path: String, operation: &Operation) {
    let mut parameters: Vec<Value> = names_in(&path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for (name, place, description) in operation.parameters {
        let schema = json!({ "type": "string" });
        parameters.push(json!({ "name": name, "in": place, "description": description, "schema": schema }));
    }
    let mut answers = Map::new();
    for (status, description, schema) in operation.answers {
        answers.insert((*status).to_owned(), answer(description, schema));
    }
    answers.entry("default").or_insert_with(|| answer("It could not be done", "problem"));
    let words = path.split(['/', '{', '}', '-', '.']).filter(|word| !word.is_empty() && *word != "v1");
    let id = std::iter::once(operation.method).chain(words).collect::<Vec<_>>().join("_");
    let mut described = json!({
        "operationId": id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": answers,
    });
    if let Some((types, schema)) = operation.body {
        let content: Map<String, Value> =
            types.iter().map(|media_type| ((*media_type).to_owned(), json!({ "schema": reference(schema) }))).collect();
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    let entry = paths.entry(path).or_insert_with(|| json!({}));
    entry[operation.method] = described;
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn answer(description: &str, schema: &str) -> Value {
    match schema {
        "" => json!({ "description": description }),
        "problem" => json!({
            "description": description,
            "content": { "application/problem+json": { "schema": reference(schema) } },
        }),
        _ => json!({
            "description": description,
            "content": { "application/json": { "schema": reference(schema) } },
        }),
    }
}

fn reference(schema: &str) -> Value {
    match schema {
        "any" => json!({}),
        "binary" => json!({ "type": "string", "contentMediaType": "application/wasm" }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

fn schemas() -> Value {
    let mut schemas = answer_schemas();
    schemas["explained"] = explained();
    schemas
}

/// Of `GET /explain`.
fn explained() -> Value {
    let text = || json!({ "type": "string" });
    let whole = || json!({ "type": "integer" });
    let maybe = || json!({ "type": ["string", "null"] });
    let row = json!({
        "event_time": text(), "position": text(), "file": text(), "row": whole(), "sub_row": whole(),
        "inputs": { "type": "object" }, "in": { "type": "boolean" },
        "verdict": { "enum": ["in", "later", "not_yet", "left", "where", "refused"] },
        "why": maybe(), "value": {}, "reason": maybe(), "letter": maybe(),
    });
    let letter = json!({
        "event_time": text(), "position": text(), "file": text(), "row": whole(), "stage": text(), "message": text(),
        "letter": maybe(),
    });
    let served = json!({
        "found": { "type": "boolean" }, "value": {}, "reason": maybe(), "event_timestamp": maybe(), "clock": maybe(),
        "online": { "type": "boolean" },
        "same": { "type": ["boolean", "null"], "description": "to the bit; null: failed, or not served" },
    });
    let list = |properties: Value| json!({ "type": "array", "items": { "type": "object", "properties": properties } });
    let told = [
        ("view", text()),
        ("feature", text()),
        ("entity", json!({ "type": "object" })),
        ("on_demand", json!({ "type": "boolean", "description": "its inputs are told, and no rows" })),
        ("revision", whole()),
        ("fingerprint", text()),
        ("udf", text()),
        ("params", json!({ "type": "object" })),
        ("module", text()),
        ("inputs", json!({ "type": "array" })),
        ("where", json!({ "type": "array", "items": { "type": "string" } })),
        ("window", text()),
        ("source", text()),
        ("complete_since", maybe()),
        ("as_of", maybe()),
        ("status", text()),
        ("event_timestamp", maybe()),
        ("value", json!({})),
        ("reason", maybe()),
        ("served", json!({ "type": ["object", "null"], "properties": served })),
        ("rows_total", whole()),
        ("rows_in", whole()),
        ("rows_later", whole()),
        ("rows_not_shown", whole()),
        ("rows", list(row)),
        ("dead_letters", list(letter)),
        ("dead_letters_total", whole()),
        ("refused_unknown_entity", json!({ "type": "object", "properties": { "total": whole(), "examples": {} } })),
        ("case", json!({ "type": "object", "properties": { "text": text(), "modules": {} } })),
    ];
    json!({ "type": "object", "properties": told.into_iter().map(|(name, one)| (name.to_owned(), one)).collect::<Map<_, _>>() })
}

fn answer_schemas() -> Value {
    let text = || json!({ "type": "string" });
    let whole = || json!({ "type": "integer" });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let object = |properties: Value| json!({ "type": "object", "properties": properties });
    let columns = || json!({ "type": "object", "additionalProperties": { "type": "array" } });
    let time = || json!({ "type": ["string", "null"], "format": "date-time" });
    json!({
        "problem": {
            "type": "object",
            "description": "RFC 9457",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": text(), "title": text(), "status": whole(), "detail": text(),
                "path": { "type": "string", "description": "what was wrong: a place in the body, a parameter, or file:line" },
            },
        },
        "module": object(json!({
            "name": text(), "version": whole(), "digest": text(), "size": whole(),
            "udfs": list(object(json!({ "name": text(), "role": text(), "doc": text(), "params": {} }))),
        })),
        "plan": object(json!({
            "revision": whole(),
            "changes": list(object(json!({
                "kind": text(), "name": text(), "change": { "enum": ["create", "update", "delete", "rename", "pause", "resume"] },
                "renamed_from": text(),
                "feature": { "type": ["string", "null"] }, "summary": { "type": ["string", "null"] },
                "cost": object(json!({
                    "build": { "enum": ["none", "column", "rebuild"] },
                    "history_rows": { "type": ["integer", "null"] }, "entities": { "type": ["integer", "null"] },
                    "state_bytes": { "type": ["integer", "null"] },
                    "begins_empty": { "type": "boolean", "description": "with from=now: where it has no history" },
                })),
                "breaks": list(text()),
            }))),
            "warnings": list(text()),
            "job": { "type": "string", "description": "with wait=false: who makes it live" },
            "cut_over_pause_us": { "type": ["integer", "null"], "description": "how long no row was folded" },
        })),
        "rollback": object(json!({ "revision": whole() })),
        "pushed": object(json!({
            "accepted": whole(), "dead_lettered": whole(), "broken": whole(), "position": whole(),
            "errors": list(object(json!({ "line": whole(), "reason": text() }))),
            "served": { "type": "boolean", "description": "with wait=served: whether a lookup sees them now" },
        })),
        "peeked": object(json!({
            "source": text(), "from": { "enum": ["log", "files"] }, "columns": list(text()),
            "first_position": { "type": ["integer", "null"] }, "end_position": { "type": ["integer", "null"] },
            "rows": list(object(json!({
                "place": text(), "arrival": time(), "values": { "type": ["object", "null"] },
                "refused": { "type": ["object", "null"], "properties": { "reason": text(), "message": text() } },
                "failures": list(object(json!({ "column": text(), "reason": text(), "message": text() }))),
                "raw": { "type": ["string", "null"] },
            }))),
            "missing": list(object(json!({ "column": text(), "file": text() }))),
        })),
        "lookup": object(json!({
            "service": text(), "features": list(text()), "entities": columns(), "request": columns(),
            "expect": { "type": "object", "additionalProperties": text() },
        })),
        "found": object(json!({
            "revision": whole(),
            "as_of": { "type": "object", "additionalProperties": time() },
            "columns": { "type": "object", "additionalProperties": object(json!({
                "fingerprint": text(), "values": list(json!({})),
                "statuses": list(json!({ "enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "ERROR"] })),
                "event_timestamps": list(time()), "valid_until": list(time()),
                "stale": list(json!({ "type": "boolean" })), "reasons": list(json!({ "type": ["string", "null"] })),
            })) },
        })),
        "dead_letters": object(json!({ "dead_letters": list(object(json!({
            "id": text(), "source": text(), "position": text(), "stage": text(), "feature": { "type": ["string", "null"] },
            "reason": text(), "message": text(), "module": { "type": ["string", "null"] }, "raw": text(), "at": time(),
            "open": { "type": "boolean" },
        }))), "total": whole() })),
        "replay": object(json!({ "ids": list(text()), "source": text(), "feature": text() })),
        "replayed": object(json!({
            "letters": list(object(json!({
                "id": text(), "source": text(), "position": text(), "feature": { "type": ["string", "null"] },
                "outcome": { "enum": ["taken", "refused", "late", "closed"] }, "open": { "type": "boolean" },
                "reason": text(), "message": text(), "refused_now": list(text()),
            }))),
            "taken": whole(), "refused": whole(), "late": whole(), "closed": whole(),
        })),
    })
}
