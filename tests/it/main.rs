//! The integration tests: one binary, one rig, real parts on loopback.

mod profiles;
