//! What this machine's kernel says of its clock.
