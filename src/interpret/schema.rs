//! The JSON Schema of the profile language, made from its types.
