//! The subcommands, a file each.

pub(crate) mod controls;
pub(crate) mod run;
