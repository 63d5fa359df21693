//! The JSON Schema of the profile language, made from its types, so that editors complete profiles.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::builtin;
use super::file::ProfileFile;

fn made() -> Json {
    let mut schema = schemars::schema_for!(ProfileFile).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "biogate device profile, schema 1".into());
    }
    schema
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("device-profiles/profile.schema.json")
}

#[test]
fn the_schema_beside_the_profiles_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&made()).unwrap() + "\n";
    if std::env::var_os("BIOGATE_WRITE_SCHEMA").is_some() {
        std::fs::write(path(), &text).unwrap();
    }
    let found = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(
        found == text,
        "device-profiles/profile.schema.json differs from the types in src/interpret/file.rs; write it anew with\n\
         BIOGATE_WRITE_SCHEMA=1 cargo test --lib interpret::schema"
    );
}

#[test]
fn shipped_profiles_fit_the_schema_and_a_misspelt_key_does_not() {
    let validator = jsonschema::validator_for(&made()).unwrap();
    for (name, text) in builtin::FILES {
        let file: Json = toml::from_str(text).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&file).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
    let (_, text) = builtin::FILES[0];
    let file: Json = toml::from_str(&text.replace("title", "titel")).unwrap();
    assert!(!validator.is_valid(&file));
}
