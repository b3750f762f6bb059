//! The JSON Schema of definitions, made from the types that read them: what editors complete and check with.

use super::typed::{
    EntityDocument, FeatureViewDocument, ModuleDocument, OnDemandDocument, ProjectDocument, ServiceDocument,
    SourceDocument, TestDocument,
};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The schema of one document of a definition file.
pub fn definition_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let documents = [
        generator.subschema_for::<ProjectDocument>(),
        generator.subschema_for::<SourceDocument>(),
        generator.subschema_for::<EntityDocument>(),
        generator.subschema_for::<FeatureViewDocument>(),
        generator.subschema_for::<OnDemandDocument>(),
        generator.subschema_for::<ServiceDocument>(),
        generator.subschema_for::<ModuleDocument>(),
        generator.subschema_for::<TestDocument>(),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Onefold definitions",
        "oneOf": documents,
        "$defs": generator.take_definitions(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_each_kind_and_offers_no_key_that_is_refused() {
        let schema = definition_schema();
        assert_eq!(schema["oneOf"].as_array().map(Vec::len), Some(8));
        let view = &schema["$defs"]["FeatureViewDocument"];
        assert_eq!(view["properties"]["kind"]["const"], "feature_view");
        assert_eq!(view["additionalProperties"], false);
        assert!(view["properties"]["features"].is_object());
        assert!(view["properties"]["renamed_from"].is_object(), "{view}");
        let source = &schema["$defs"]["SourceDocument"];
        assert!(source["properties"]["schema"].is_object());
        assert!(source["properties"]["event_id"].is_null(), "{source}");
    }
}
