//! The commands: one file each.

pub mod decode;
pub mod explain;
pub mod profile_folders;
pub mod profiles;
