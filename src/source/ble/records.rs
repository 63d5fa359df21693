//! PURE Stored measurements: what is asked of a record access control point (2A52), and when records may be erased.
