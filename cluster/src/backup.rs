//! A cluster in one file: its rules with their history, its tokens, and what each bucket has used; and a data directory made of it.
//!
//! - `file`: how it lies in the file, and whether that is whole.
//! - `parts`: what a running node gives.
//! - `restore`: the data directory of a new cluster's first node.

mod file;
mod parts;
mod restore;

pub(crate) use self::{file::begin, parts::BucketPart};
pub use self::{
    file::{BackupError, BackupWriter, Summary, verify},
    parts::{PartSummary, look_at_part},
    restore::{Restored, restore},
};
