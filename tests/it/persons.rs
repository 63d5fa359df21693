//! Persons through the whole binary.
