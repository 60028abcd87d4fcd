//! What a run found, for a terminal, for a browser, and as a picture.

pub mod html;
mod ink;
pub mod picture;
pub mod planted;
pub mod progress;
pub mod terminal;
pub mod timeline;
